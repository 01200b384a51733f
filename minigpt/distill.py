"""Knowledge distillation: a small model learns what a large one thinks of every token, beside which token came.

B batch, T tokens, C = n_embd, V = vocab_size, N targets that count. This module knows nothing of the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.model import GPT


class Distillation(nn.Module):
    """A student with a frozen teacher, for the `Trainer` as it is (Hinton et al. 2015, section 2).

    In training the loss is alpha * temperature^2 * KL(teacher || student, both softened) + (1 - alpha) * cross-entropy, in
    nats per token, plus features * how far what the student's blocks give is from what the teacher's give: the mean over the
    blocks of the squared distance, as a share of the teacher's square (SquareHead; Kurtic et al. 2023, arXiv 2310.06927). In
    evaluation it is the student's cross-entropy alone, which can be compared. The teacher is put into evaluation mode; it is
    no part of the parameters or of the state dict. Afterwards the student is used by itself.

    Args:
        student: the model that learns.
        teacher: the model that it learns from, with the same tokenizer.
        alpha: the weight of the teacher's word, 0 to 1.
        temperature: what both models' logits are divided by; above 1, unlikely tokens count more.
        features: the weight of what the blocks give; for a student with the teacher's blocks, such as a pruned copy.

    Raises:
        ValueError: vocabularies of two sizes, a teacher with a shorter context, one model in both roles, an alpha outside 0
            to 1, a temperature that is not above 0, features below 0 or between blocks that are not alike.
    """

    def __init__(self, student: GPT, teacher: GPT, alpha: float = 0.5, temperature: float = 2.0, features: float = 0.0):
        super().__init__()
        if student is teacher:
            raise ValueError(
                "student and teacher are one model, which would teach itself; give it a copy or another one."
            )
        for name in ("vocab_size", "context_length"):
            ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
            if theirs < ours or (name == "vocab_size" and theirs != ours):
                raise ValueError(
                    f"the student has {name}={ours}, the teacher {theirs}; give the student {name}={theirs} and, for the "
                    "vocabulary, the teacher's tokenizer."
                )
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} is no weight; use 0 (the text alone) to 1 (the teacher alone).")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0; 1 leaves the teacher as it is, 2 softens it.")
        if not features >= 0:
            raise ValueError(f"features={features} is no weight; use 0 (what comes out alone) or more, such as 1.")
        shapes = [(m.config.n_layer, m.config.n_embd) for m in (student, teacher)]
        if features and shapes[0] != shapes[1]:
            raise ValueError(
                f"the student has n_layer, n_embd = {shapes[0]}, the teacher {shapes[1]}: what their blocks give cannot be "
                "compared; use features=0, or a student with the teacher's blocks."
            )
        self.student, self.alpha, self.temperature, self.features = student, alpha, temperature, features
        self._teacher = (teacher.eval(),)  # in a tuple, where torch does not count it as a part

    @property
    def teacher(self) -> GPT:
        """The model that is learned from."""
        return self._teacher[0]

    @property
    def activation_checkpointing(self) -> bool:
        """Whether training computes each block of the student twice, to keep less in memory."""
        return self.student.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, yes: bool) -> None:
        self.student.activation_checkpointing = yes

    def _apply(self, function: Callable[[Tensor], Tensor], *options: Any, **more: Any) -> Self:
        self.teacher._apply(function, *options, **more)  # to the device that the student goes to
        return super()._apply(function, *options, **more)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if targets is None or not self.training:
            return self.student(idx, targets)
        with _outputs(self.student if self.features else None) as ours:
            logits, loss = self.student(idx, targets)  # (B, T, V)
        with torch.no_grad(), _outputs(self.teacher if self.features else None) as theirs:
            wanted = self.teacher(idx)[0]  # (B, T, V)
        counted = targets != -100
        student, teacher = (
            F.log_softmax(x[counted].float() / self.temperature, dim=-1) for x in (logits, wanted)
        )  # (N, V)
        distance = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        loss = self.alpha * self.temperature**2 * distance + (1 - self.alpha) * loss
        for mine, other in zip(ours, theirs, strict=True):
            mine, other = mine[counted].float(), other[counted].float()  # (N, C)
            apart = (mine - other).square().sum() / other.square().sum()
            loss = loss + self.features / len(ours) * apart
        return logits, loss


@contextmanager
def _outputs(model: GPT | None) -> Iterator[list[Tensor]]:
    """A list that receives what each block gives, (B, T, C), while the model runs; it stays empty for None."""
    found: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, x: found.append(x)) for block in (model.blocks if model else ())]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
