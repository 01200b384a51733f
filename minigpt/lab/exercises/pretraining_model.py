"""What notebook 04's exercises about updates and losses share: a small model that notes what an answer does with it.

Answers and known mistakes alike make several updates of it, and are compared by weights, losses and what was noted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.lab.check import Mistake, call, mistake
from minigpt.lab.diagnose import Mistakes, explain, tensor

Answer = Callable[..., Any]
Batch = tuple[Tensor, Tensor]  # idx and targets, both (B, T)

VOCAB = 11


class Watched(nn.Module):
    """A language model in miniature, always with the same weights, that notes what is done with it."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn(VOCAB, 6, generator=random))
        self.head = nn.Parameter(torch.randn(6, VOCAB, generator=random))
        self.dropout = nn.Dropout(dropout)
        self.expected: str | None = None  # the trace from which this one may not differ
        self.trace = ""  # F for a forward pass with a graph, B for a backward one, S for a step (0: without gradients)
        self.passes: list[tuple[int, bool, bool]] = []  # rows, training mode, gradients on
        self.head.register_post_accumulate_grad_hook(lambda _: self.note("B"))

    def note(self, event: str) -> None:
        """Append an event to the trace. RuntimeError when another one was expected, which saves the rest of the run."""
        self.trace += event
        if self.expected is not None and not self.expected.startswith(self.trace):
            raise RuntimeError(f"{self.trace} instead of {self.expected}")

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and the mean loss over the targets that are not -100."""
        if torch.is_grad_enabled():
            self.note("F")
        self.passes.append((len(idx), self.training, torch.is_grad_enabled()))
        logits = self.dropout(F.embedding(idx, self.table)) @ self.head
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class NotALoss(Exception):
    """An answer gave something else than one number; `found` says what."""

    def __init__(self, found: Mistake):
        super().__init__(found.code)
        self.found = found


def loss_number(got: Any) -> float:
    """The one number that an answer gave, of whatever type. NotALoss for anything else."""
    got = tensor(got)
    if isinstance(got, Tensor) and got.numel() == 1:
        return float(got.detach())
    if isinstance(got, tuple | list) and any(isinstance(part, Tensor) and part.dim() > 1 for part in got):
        raise NotALoss(mistake("pair_returned"))
    raise NotALoss(mistake("not_one_number", kind=type(got).__name__))


def batch(rows: int, T: int, seed: int, ignored: int = 0) -> Batch:
    """Windows and targets, of which the first `ignored` are -100."""
    random = torch.Generator().manual_seed(seed)
    idx, targets = torch.randint(VOCAB, (2, rows, T), generator=random)
    targets.view(-1)[:ignored] = -100
    return idx, targets


def sizes(batches: Sequence[Batch]) -> tuple[list[int], list[int]]:
    """How many targets of each batch count, and how many there are."""
    return [int((targets != -100).sum()) for _, targets in batches], [targets.numel() for _, targets in batches]


class Run(NamedTuple):
    """What updates lead to: the loss given back by each, the weights after it, what the model noted, and the mode."""

    losses: Tensor  # (updates,)
    weights: Tensor  # (updates, parameters)
    traces: list[str]
    model: Watched
    attached: bool

    def numbers(self) -> Tensor:
        """Losses and weights in one row."""
        return torch.cat([self.losses, self.weights.flatten()])


Given = Sequence[tuple[Any, ...]]  # what each update is called with, after the model and the optimizer


def _run(answer: Answer, given: Given, as_in: Run | None = None, **options: Any) -> Run:
    """The updates of an answer; with `as_in`, only up to the first that goes another way than there."""
    model = Watched()
    optimizer = options.pop("kind", torch.optim.SGD)(model.parameters(), lr=0.1, **options)
    optimizer.register_step_pre_hook(
        lambda *_: model.note("S" if any(p.grad is not None for p in model.parameters()) else "0")
    )
    for parameter in model.parameters():  # left by something before
        parameter.grad = torch.full_like(parameter, 0.7)
    losses, weights, traces, attached = [], [], [], False
    for n, arguments in enumerate(given):
        model.trace, model.expected = "", as_in and as_in.traces[n]
        got = call(answer, model, optimizer, *(arguments if as_in else copy.deepcopy(arguments)))  # ours change nothing
        losses.append(loss_number(got))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        traces.append(model.trace)
        attached = attached or (isinstance(got, Tensor) and got.requires_grad)
        if as_in and not (model.trace == model.expected and _alike(weights[n], as_in.weights[n])):
            break
    return Run(torch.tensor(losses), torch.stack(weights), traces, model, attached)


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, 1e-4, 1e-5, equal_nan=True)


def diagnose_updates(
    answer: Answer, program: Callable[..., Answer], mistakes: Mistakes, cases: Sequence[Given]
) -> Run | Mistake:
    """The run of a right answer, else its mistake: a known one, or what went wrong with the weights or the loss.

    Args:
        program: makes an answer, the right one or, with options, one that goes wrong.
        cases: the first is diagnosed, with momentum; the others are tried with AdamW once that one is right.
    """
    first, *others = cases
    try:
        got, right = _run(answer, first, momentum=0.9), _run(program(), first, momentum=0.9)
        if not _alike(got.numbers(), right.numbers()):

            def simulate(**options: Any) -> Tensor:
                return _run(program(**options), first, as_in=got, momentum=0.9).numbers()

            return explain([(got.numbers(), simulate)], mistakes) or _look(got, right)
        for case in others:
            other, expected = (_run(each, case, kind=torch.optim.AdamW) for each in (answer, program()))
            if not _alike(other.numbers(), expected.numbers()):
                return mistake("other_case")
    except NotALoss as error:
        return error.found
    except RuntimeError as error:
        if "inplace operation" in str(error):
            return mistake("step_before_backward")
        raise
    if not got.model.training or not all(training for _, training, graph in got.model.passes if graph):
        return mistake("eval_mode")
    return mistake("attached") if got.attached else got


def _look(got: Run, right: Run) -> Mistake:
    """What is wrong where no known mistake gives the same numbers."""
    if not got.weights.isfinite().all():
        return mistake("not_finite", share=f"{1 - got.weights.isfinite().float().mean():.0%}")
    if _alike(got.weights, right.weights):
        where = next(i for i, (a, b) in enumerate(zip(got.losses, right.losses)) if not _alike(a, b))
        return mistake("loss_differs", got=f"{got.losses[where]:.4g}", expected=f"{right.losses[where]:.4g}")
    start = torch.cat([parameter.detach().flatten() for parameter in Watched().parameters()])
    if torch.equal(got.weights[0], start):
        return mistake("nothing_moved")
    if not any(event in trace for trace in got.traces for event in "S0"):
        return mistake("optimizer_unused")
    return mistake("weights_differ", share=f"{(got.weights[0] - start).norm() / (right.weights[0] - start).norm():.3g}")
