"""What notebook 07's exercise about training a pruned model asks for, and the ways in which answers go wrong.

A mistake is a program: Z clears the gradients, F goes forward, B backward, S steps, M masks the weights, G the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.lab.check import Mistake, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, explain
from minigpt.lab.exercises.compression_parts import Answer, Watching, alike
from minigpt.lab.exercises.pretraining_model import NotALoss, loss_number

SIDE = 6  # all weights are as large as the vocabulary, so that a mask in a wrong place gives numbers too
Masks = dict[str, Tensor]
Pairs = Callable[[nn.Module, Masks], Iterable[tuple[Tensor, Tensor]]]


class Small(nn.Module):
    """A language model of three square matrices, always with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(4)
        for name in ("table", "body", "head"):
            setattr(self, name, nn.Parameter(torch.randn(SIDE, SIDE, generator=random)))

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and the mean loss."""
        logits = torch.tanh(F.embedding(idx, self.table) @ self.body) @ self.head
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _masks(*names: str) -> Masks:
    random = torch.Generator().manual_seed(6)
    return {name: torch.rand(SIDE, SIDE, generator=random) < 0.6 for name in names}


def _named(model: nn.Module, masks: Masks) -> Iterable[tuple[Tensor, Tensor]]:
    return [(dict(model.named_parameters())[name], mask) for name, mask in masks.items()]


def _step(
    program: str = "ZFBSM", pairs: Pairs = _named, keep: Callable[[Tensor], Tensor] = lambda mask: mask
) -> Answer:
    """An update as a program, in the letters above."""

    def answer(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer, masks: Masks) -> float:
        for letter in program:
            if letter == "Z":
                optimizer.zero_grad()
            elif letter == "F":
                loss = model(*batch)[1]
            elif letter == "B":
                loss.backward()
            elif letter == "S":
                optimizer.step()
            else:
                for parameter, mask in pairs(model, masks):
                    masked = parameter.data if letter == "M" else parameter.grad
                    if masked is not None:
                        masked.mul_(keep(mask))
        return loss.item()

    return answer


UPDATE: Mistakes = {
    "not_masked": each("program", "ZFBS"),
    "mask_before": each("program", "MZFBS", "ZMFBS", "ZFMBS", "ZFBMS"),
    "gradients_only": each("program", "ZFBGS", "MZFBGS", "ZMFBGS", "ZFBGMS"),
    "mask_inverted": [
        {"keep": torch.logical_not, "program": program} for program in ("ZFBSM", "MZFBS", "ZFBMS", "ZFBGS")
    ],
    "by_position": each(
        "pairs",
        lambda model, masks: zip(model.parameters(), masks.values()),
        lambda model, masks: zip(reversed(list(model.parameters())), masks.values()),
    ),
    "first_only": each(
        "pairs", lambda model, masks: _named(model, masks)[:1], lambda model, masks: _named(model, masks)[-1:]
    ),
    "no_zero_grad": each("program", "FBSM", "MFBSM"),
    "zero_at_end": each("program", "FBSZM"),
    "nothing_moved": each("program", "ZFBM", "ZFSM", "FBZSM", "F", "FM"),
    "two_steps": each("program", "ZFBSMSM", "ZFBSSM", "ZFBSMZFBSM"),
}


class Run(NamedTuple):
    """What updates lead to: the loss given back by each, the weights after it, and whether all are still the same."""

    losses: Tensor  # (updates,)
    weights: Tensor  # (updates, parameters)
    replaced: bool

    def numbers(self) -> Tensor:
        """Losses and weights in one row."""
        return torch.cat([self.losses, self.weights.flatten()])


def _run(answer: Answer, masks: Masks, kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Run:
    """Three updates of a model that was trained whole and then pruned, so that its optimizer has momentum everywhere."""
    model, random = Small(), torch.Generator().manual_seed(8)
    optimizer, before = kind(model.parameters(), lr=0.1, **options), list(model.parameters())
    losses, weights = [], []
    for update in range(5):
        batch = tuple(torch.randint(SIDE, (2, 4, 5), generator=random))
        if update < 2:
            _step("ZFBS")(model, batch, optimizer, masks)
            continue
        if update == 2:
            for parameter, mask in _named(model, masks):
                parameter.data.mul_(mask)
            for parameter in model.parameters():  # left by something before
                parameter.grad = torch.full_like(parameter, 0.7)
        losses.append(loss_number(call(answer, model, batch, optimizer, masks)))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    replaced = any(old is not new for old, new in zip(before, model.parameters()))
    return Run(torch.tensor(losses), torch.stack(weights), replaced)


@exercise("compression/prune_step")
def prune_step(answer: Answer) -> Mistake | None:
    """answer(model, batch, optimizer, masks) -> the loss before the one update that it makes; what was pruned stays 0."""
    masks = _masks("head", "table")
    usual = (masks, torch.optim.AdamW)
    try:
        got, right = _run(answer, *usual), _run(_step(), *usual)
        if got.replaced:
            return mistake("parameter_replaced")
        if not alike(got.numbers(), right.numbers()):
            found = explain([(got.numbers(), lambda **options: _run(_step(**options), *usual).numbers())], UPDATE)
            if found and found.code == "not_masked" and _uses_masks(answer):
                return mistake("new_tensor")
            return found or _look(got, right, masks)
        other = (_masks("body"), torch.optim.SGD)
        got, right = (_run(each, *other, momentum=0.9, weight_decay=0.1) for each in (answer, _step()))
    except NotALoss as error:
        return error.found
    except RuntimeError as error:
        if "leaf Variable" in str(error):
            return mistake("guarded")
        raise
    return None if alike(got.numbers(), right.numbers()) else mistake("other_case")


def _uses_masks(answer: Answer) -> bool:
    masks, model = _masks("head", "table"), Small()
    idx, targets = torch.zeros(2, 1, 2, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters())
    with Watching(lambda given, result: any(part is mask for part in given for mask in masks.values())) as watching:
        answer(model, (idx, targets), optimizer, masks)
    return watching.seen


def _look(got: Run, right: Run, masks: Masks) -> Mistake:
    """What is wrong where no known mistake gives the same numbers."""
    if not got.weights.isfinite().all():
        return mistake("not_finite", share=f"{1 - got.weights.isfinite().float().mean():.0%}")
    if alike(got.weights, right.weights):
        at = int((got.losses - right.losses).abs().argmax())
        return mistake("loss_differs", got=f"{got.losses[at]:.4g}", expected=f"{right.losses[at]:.4g}")
    names = [name for name, _ in Small().named_parameters()]
    for name, weight in zip(names, got.weights[-1].view(len(names), SIDE, SIDE)):
        mask = masks.get(name, torch.ones(SIDE, SIDE, dtype=torch.bool))
        if alive := int((weight[~mask] != 0).sum()):
            return mistake("pruned_moved", name=name, count=alive, total=int((~mask).sum()))
        if dead := int((weight[mask] == 0).sum()):
            return mistake("kept_lost", name=name, count=dead, total=int(mask.sum()))
    return mistake("weights_differ")
