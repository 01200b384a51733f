"""Knowledge distillation: a small model learns what a large one thinks of every token, beside which token came.

B batch, T tokens, V = vocab_size, N targets that count. This module knows nothing of the training loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.model import GPT


class Distillation(nn.Module):
    """A student with a frozen teacher, for the `Trainer` as it is (Hinton et al. 2015, section 2).

    In training the loss is alpha * temperature^2 * KL(teacher || student, both softened) + (1 - alpha) * cross-entropy, in
    nats per token; in evaluation it is the student's cross-entropy alone, which can be compared. The teacher is put into
    evaluation mode; it is no part of the parameters or of the state dict. Afterwards the student is used by itself.

    Args:
        student: the model that learns.
        teacher: the model that it learns from, with the same tokenizer.
        alpha: the weight of the teacher's word, 0 to 1.
        temperature: what both models' logits are divided by; above 1, unlikely tokens count more.

    Raises:
        ValueError: vocabularies of two sizes, a teacher with a shorter context, one model in both roles, an alpha outside 0
            to 1, a temperature that is not above 0.
    """

    def __init__(self, student: GPT, teacher: GPT, alpha: float = 0.5, temperature: float = 2.0):
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
        self.student, self.alpha, self.temperature = student, alpha, temperature
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
        logits, loss = self.student(idx, targets)  # (B, T, V)
        if loss is None or not self.training:
            return logits, loss
        with torch.no_grad():
            theirs = self.teacher(idx)[0]  # (B, T, V)
        counted = targets != -100
        ours, theirs = (
            F.log_softmax(x[counted].float() / self.temperature, dim=-1) for x in (logits, theirs)
        )  # (N, V)
        distance = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return logits, self.alpha * self.temperature**2 * distance + (1 - self.alpha) * loss
