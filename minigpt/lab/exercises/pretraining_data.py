"""What notebook 04's exercises about windows and about validation ask for, and the ways in which answers go wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minigpt.lab.check import Mistake, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, each, explain
from minigpt.lab.exercises.pretraining_model import Answer, Batch, NotALoss, Watched, batch, loss_number, sizes
from minigpt.lab.exercises.pretraining_steps import MEAN, WEIGHTS, Report, weighted

Windows = tuple[Tensor, list[int], int]  # tokens (N,), where the windows start, T


def _text(N: int) -> Tensor:
    """N different ids in no order, so that each tells where it stood."""
    return torch.randperm(3 * N)[:N]


def _cut(windows: Windows) -> Simulate:
    """Both tensors as one, (2, B, T), with an option for each way to cut and pair them wrongly."""
    tokens, places, T = windows

    def simulate(
        begin: Callable[[Tensor], Tensor] = lambda starts: starts,
        target: Callable[[Tensor], Tensor] = lambda at: tokens[at + 1],
        read: Callable[[Tensor], Tensor] = lambda at: tokens[at],
        pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda idx, targets: (idx, targets),
    ) -> Tensor:
        at = begin(torch.tensor(places))[:, None] + torch.arange(T)  # (B, T)
        return torch.stack(pair(read(at), target(at)))

    return simulate


def _cutting(windows: Windows) -> Mistakes:
    tokens, _, T = windows

    def last(made: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda at: torch.cat([tokens[at[:, 1:]], made(tokens[at])], dim=1)

    return {
        "swapped": each("pair", lambda idx, targets: (targets, idx)),
        "not_shifted": each("target", lambda at: tokens[at]),
        "shifted_backwards": each("target", lambda at: tokens[at - 1]),
        "shifted_by_two": each("target", lambda at: tokens[at + 2]),
        "next_window": each("target", lambda at: tokens[at + T]),
        "wrapped_around": each("target", lambda at: tokens[at].roll(-1, 1)),
        "rows_joined": each("target", lambda at: tokens[at].flatten().roll(-1).view_as(at)),
        "rows_shifted": each("target", lambda at: tokens[at].roll(-1, 0)),
        "last_target_made_up": each(
            "target",
            *(last(lambda x, fill=fill: torch.full_like(x[:, :1], fill)) for fill in (-100, 0, -1)),
            last(lambda x: x[:, -1:]),
        ),
        "ids_plus_one": each("target", lambda at: tokens[at] + 1),
        "positions": [
            {"read": lambda at: at, "target": lambda at: at + 1},
            *each("read", lambda at: at),
            *each("target", lambda at: at + 1),
        ],
        "starts_unused": each(
            "begin",
            lambda starts: torch.arange(len(starts)) * T,
            lambda starts: starts[0] + torch.arange(len(starts)) * T,
            lambda starts: torch.arange(len(starts)) * (T + 1),
            lambda starts: torch.arange(len(starts)),
        ),
        "starts_as_numbers": each("begin", lambda starts: starts * T, lambda starts: starts // T * T),
        "one_start_for_all": each("begin", lambda starts: starts[0].expand(len(starts))),
        "starts_off": each("begin", lambda starts: starts + 1, lambda starts: starts - 1),
        "starts_reordered": each("begin", lambda starts: starts.sort().values, lambda starts: starts.flip(0)),
    }


def _windows(answer: Answer, windows: Windows) -> Mistake | None:
    tokens, places, T = windows
    B, got = len(places), call(answer, tokens, torch.tensor(places), T)
    if isinstance(got, Tensor) and got.shape in {(B, T + 1), (B, T)}:
        return mistake("one_tensor", got=tuple(got.shape))
    if not isinstance(got, tuple | list | Tensor) or len(got) != 2 or not all(isinstance(x, Tensor) for x in got):
        return mistake("not_two_tensors")
    idx, targets = got
    if idx.shape != (B, T) or targets.shape != (B, T):
        return _shapes(idx.shape, targets.shape, B, T)
    made, right = torch.stack([idx.double(), targets.double()]), _cut(windows)()
    if not torch.equal(made, right.double()):
        again = call(answer, tokens, torch.tensor(places), T)
        if not all(map(torch.equal, got, again)):
            return mistake("unsteady")
        return explain([(made, _cut(windows))], _cutting(windows)) or _first_difference(idx, targets, right)
    for name, kind in (("idx", idx.dtype), ("targets", targets.dtype)):
        if kind != torch.int64:
            return mistake("dtype", name=name, kind=str(kind).removeprefix("torch."))
    return None


def _shapes(idx: Sequence[int], targets: Sequence[int], B: int, T: int) -> Mistake:
    shapes = {"idx": tuple(idx), "targets": tuple(targets), "expected": (B, T)}
    if shapes["idx"] == (B, T) and shapes["targets"] in {(B,), (B, 1)}:
        return mistake("one_target", **shapes)
    named = {(B, T - 1): "window_short", (B, T + 1): "window_long", (T, B): "turned", (B * T,): "joined"}
    if shapes["idx"] == shapes["targets"] and shapes["idx"] in named:
        return mistake(named[shapes["idx"]], **shapes)
    return mistake("shapes", **shapes)


def _first_difference(idx: Tensor, targets: Tensor, right: Tensor) -> Mistake:
    name, got, expected = ("idx", idx, right[0]) if not torch.equal(idx, right[0]) else ("targets", targets, right[1])
    row, at = (int(i) for i in (got != expected).nonzero()[0])
    return mistake("id_differs", name=name, row=row, at=at, got=got[row, at].item(), expected=int(expected[row, at]))


@exercise("pretraining/windows")
def windows(answer: Answer) -> Mistake | None:
    """answer(tokens, starts, T) -> idx, targets, both (B, T) int64: a window at each start, and what follows each token."""
    found = _windows(answer, (_text(120), [17, 5, 26], 4))
    for N, places, T in ((40, [39 - 5, 0, 11, 0], 5), (9, [3], 1), (9, [0], 8)):
        if found is None:
            try:
                found = _windows(answer, (_text(N), places, T))
            except (RuntimeError, IndexError, ValueError) as error:
                found = mistake("stops_at_edge", kind=type(error).__name__)
            if found is not None:
                return mistake("fails_at_edge", starts=places, T=T, total=N)
    return found


MIXED: Mistakes = {
    "train_batches": each("data", lambda train, val: train),
    "both": each("data", lambda train, val: train + val, lambda train, val: val + train),
    "first_batch_only": each("data", lambda train, val: val[:1]),
    "last_batch_only": each("data", lambda train, val: val[-1:]),
    "last_batch_left_out": each("data", lambda train, val: val[:-1]),
    "mean_of_means": each("report", weighted(WEIGHTS["by_batches"][0])),
    "ignored_counted": each("report", weighted(WEIGHTS["ignored_counted"][0])),
    "summed": each("report", weighted(WEIGHTS["summed"][0])),
    "not_divided": each("report", weighted(WEIGHTS["not_divided"][0])),
    "divided_twice": each("report", *map(weighted, WEIGHTS["divided_twice"])),
    "perplexity": [
        *each("end", math.exp),
        *each("report", lambda losses, *_: sum(map(math.exp, losses)) / len(losses)),
    ],
    "bits": each("end", lambda loss: loss / math.log(2)),
    "gap": each("gap", 1.0, -1.0),
    "sign": each("end", lambda loss: -loss),
}


def _validation(train: list[Batch], val: list[Batch]) -> Simulate:
    model = Watched(dropout=0.5).eval()

    def simulate(
        data: Callable[[list[Batch], list[Batch]], list[Batch]] = lambda train, val: val,
        report: Report = MEAN,
        end: Callable[[float], float] = float,
        gap: float = 0.0,
    ) -> Tensor:
        def mean(batches: list[Batch]) -> float:
            with torch.no_grad():
                return report([float(model(*some)[1]) for some in batches], *sizes(batches))

        if gap:
            return torch.tensor(gap * (mean(val) - mean(train)))
        return torch.tensor(end(mean(data(train, val))))

    return simulate


def _changed(model: Watched) -> Mistake | None:
    """What makes the loss of a model that is being measured another one."""
    if any(not torch.equal(*pair) for pair in zip(model.parameters(), Watched().parameters())):
        return mistake("weights_changed")
    return mistake("dropout_on") if any(training for _, training, _ in model.passes) else None


def _left(model: Watched, training: bool) -> Mistake | None:
    """What a right answer leaves behind."""
    if any(parameter.grad is not None for parameter in model.parameters()):
        return mistake("backward")
    if any(graph for *_, graph in model.passes):
        return mistake("graph_kept")
    if model.training != training or model.dropout.training != training:
        return mistake("left_in_eval" if training else "left_in_training")
    return None


@exercise("pretraining/validation_loss")
def validation_loss(answer: Answer) -> Mistake | None:
    """answer(model, train_batches, val_batches) -> nats per validation token, and the model as it was before."""
    train, left, results = [batch(3, 4, 1), batch(3, 4, 2)], [], []
    even = [batch(2, 3, 6, ignored=1), batch(2, 3, 7), batch(2, 3, 8, ignored=4), batch(1, 3, 9)]
    for val, training in (([batch(4, 4, 3), batch(4, 4, 4, ignored=7), batch(1, 4, 5)], True), (even, False)):
        model = Watched(dropout=0.5).train(training)
        try:
            got = loss_number(call(answer, model, *copy.deepcopy((train, val))))
        except NotALoss as error:
            return error.found
        if found := _changed(model):
            return found
        results.append((torch.tensor(got), _validation(train, val)))
        left.append(_left(model, training))
    for got, simulate in results:
        if not torch.allclose(got, simulate(), 1e-4, 1e-5):
            return explain(results, MIXED) or mistake("value", got=f"{got:.4g}", expected=f"{simulate():.4g}")
    return next(filter(None, left), None)
