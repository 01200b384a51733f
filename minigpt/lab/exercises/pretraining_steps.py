"""What notebook 04's exercises about an update ask for, and the ways in which answers go wrong.

A mistake is a program: Z clears the gradients, F goes forward, B backward, C clips, S steps, U updates by hand,
A goes backward from all losses together, R from those so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.lab.check import Mistake, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each
from minigpt.lab.exercises.pretraining_model import Answer, Batch, Watched, batch, diagnose_updates, sizes

Weigh = Callable[[list[int], list[int]], list[float]]  # a weight for each batch, from its counted and its all targets
Report = Callable[[list[float], list[int], list[int]], float]  # the loss given back, from those of the batches


def _step(
    program: str = "ZFBS",
    given: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda idx, targets: (idx, targets),
    scale: Callable[[Tensor], float] = lambda idx: 1.0,
    limit: Callable[[Any], Any] = lambda parameters: None,
    report: Callable[[Tensor, Tensor], Tensor] = lambda loss, idx: loss,
    after: Callable[[], AbstractContextManager] | None = None,
) -> Answer:
    """An update as a program, in the letters above; with `after`, the loss given back is that of the changed weights."""

    def answer(model: Watched, optimizer: torch.optim.Optimizer, idx: Tensor, targets: Tensor) -> float:
        idx, targets = given(idx, targets)
        for letter in program:
            if letter == "Z":
                optimizer.zero_grad()
            elif letter == "F":
                loss = model(idx, targets)[1]
            elif letter == "B":
                (loss * scale(idx)).backward(retain_graph=True)
            elif letter == "C":
                limit(model.parameters())
            elif letter == "S":
                optimizer.step()
            else:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= optimizer.param_groups[0]["lr"] * parameter.grad
        if after is not None:
            with after():
                loss = model(idx, targets)[1]
        return float(report(loss.detach(), idx))

    return answer


SIZES = [f for n in (len, Tensor.numel, lambda idx: idx.size(1)) for f in (n, lambda idx, n=n: 1 / n(idx))]
_clip = nn.utils.clip_grad_norm_
STEP: Mistakes = {
    "no_zero_grad": each("program", "FBS", "FBSS"),
    "zero_at_end": each("program", "FBSZ"),
    "zero_before_step": each("program", "FBZS", "ZFBZS"),
    "no_step": each("program", "ZFB", "FZB", "FB", "FBZ"),
    "no_backward": each("program", "ZFS", "FS", "FSZ"),
    "only_the_loss": each("program", "F", "ZF", "FZ"),
    "step_before_backward": each("program", "ZFSB", "FZSB", "SZFB", "ZSFB"),
    "backward_twice": each("program", "ZFBBS", "ZFBFBS"),
    "two_steps": each("program", "ZFBSS"),
    "two_updates": each("program", "ZFBSZFBS", "ZFBSFBS", "ZFBSBS"),
    "ascent": each("scale", lambda idx: -1.0),
    "clipped": [
        {"program": "ZFBCS", "limit": limit}
        for limit in (
            *(lambda parameters, most=most: _clip(parameters, most) for most in (1.0, 0.5, 0.1, 2.0, 5.0)),
            *(lambda parameters, most=most: nn.utils.clip_grad_value_(parameters, most) for most in (1.0, 0.5, 0.1)),
        )
    ],
    "scaled": each("scale", *SIZES),
    "optimizer_unused": each("program", "ZFBU", "ZFBUZ", "FBUZ", "FBU"),
    "swapped": each("given", lambda idx, targets: (targets, idx)),
    "copying": each("given", lambda idx, targets: (idx, idx), lambda idx, targets: (targets, targets)),
    "part_of_the_batch": each(
        "given",
        *(lambda idx, targets, cut=cut: (idx[cut], targets[cut]) for cut in (slice(1), slice(1, None), slice(-1))),
        lambda idx, targets: (idx[:, -1:], targets[:, -1:]),
    ),
    "shifted_again": each(
        "given",
        lambda idx, targets: (idx[:, :-1], targets[:, 1:]),
        lambda idx, targets: (idx[:, :-1], idx[:, 1:]),
    ),
    "loss_after_the_step": each("after", torch.no_grad, torch.enable_grad),
    "perplexity": each("report", lambda loss, idx: loss.exp()),
    "bits": each("report", lambda loss, idx: loss / math.log(2)),
    "loss_scaled": each("report", *(lambda loss, idx, f=f: loss * f(idx) for f in SIZES)),
    "sign": each("report", lambda loss, idx: -loss),
}


@exercise("pretraining/training_step")
def training_step(answer: Answer) -> Mistake | None:
    """answer(model, optimizer, idx, targets) -> the loss as a number, from before the one update that it makes."""
    cases = [[batch(4, 5, seed) for seed in (1, 2)], [batch(1, 1, 4)], [batch(2, 9, 5), batch(3, 2, 6)]]
    found = diagnose_updates(answer, _step, STEP, cases)
    return found if isinstance(found, Mistake) else None


WEIGHTS: dict[str, list[Weigh]] = {
    "right": [lambda counts, rows: [n / sum(counts) for n in counts]],
    "summed": [lambda counts, rows: [1.0 for _ in counts]],
    "by_batches": [lambda counts, rows: [1 / len(counts) for _ in counts]],
    "ignored_counted": [lambda counts, rows: [n / sum(rows) for n in rows]],
    "not_divided": [lambda counts, rows: [float(n) for n in counts]],
    "first_size_for_all": [lambda counts, rows: [n / (counts[0] * len(counts)) for n in counts]],
    "divided_twice": [
        lambda counts, rows: [n / sum(counts) / len(counts) for n in counts],
        lambda counts, rows: [1 / len(counts) ** 2 for _ in counts],
    ],
    "running_total": [lambda counts, rows: [n / sum(counts[: i + 1]) for i, n in enumerate(counts)]],
    "turned_over": [lambda counts, rows: [1 / n for n in counts]],
}
REPORTS = ("summed", "by_batches", "ignored_counted", "not_divided", "divided_twice")  # what the loss alone may be


def weighted(weigh: Weigh) -> Report:
    """The sum of the losses times their weights."""
    return lambda losses, counts, rows: sum(w * loss for w, loss in zip(weigh(counts, rows), losses))


ALIKE = WEIGHTS["by_batches"]
MEAN = weighted(WEIGHTS["right"][0])


def _accumulate(
    program: str = "Z(FB)S",
    weigh: Weigh = WEIGHTS["right"][0],
    report: Report = MEAN,
    some: slice = slice(None),
) -> Answer:
    """An update as a program whose part in brackets is run for each micro-batch."""
    before, _, rest = program.partition("(")
    inside, _, end = rest.partition(")")

    def answer(model: Watched, optimizer: torch.optim.Optimizer, micro_batches: list[Batch]) -> float:
        counts, rows = sizes(micro_batches)
        weights, losses, graphs = weigh(counts, rows), [], []
        numbered = list(enumerate(micro_batches))[some]
        parts = [(before, 0), *((inside, i) for i, _ in numbered), (end, numbered[-1][0])]
        for letter, i in ((letter, i) for letters, i in parts for letter in letters):
            if letter == "Z":
                optimizer.zero_grad()
            elif letter == "F":
                loss = model(*micro_batches[i])[1]
                losses.append(float(loss.detach()))
                graphs.append(loss * weights[i])
            elif letter == "B":
                graphs[-1].backward()
            elif letter in "AR":
                sum(graphs).backward(retain_graph=letter == "R")
            elif letter == "C":
                _clip(model.parameters(), 1.0)
            else:
                optimizer.step()
        return report(losses, counts[some], rows[some])

    return answer


def _programs(*programs: str) -> list[dict[str, Any]]:
    """The forms of a mistake in the order of the calls, with losses that are weighed rightly, alike, or not at all."""
    styles = ({}, *({"weigh": weigh, "report": weighted(*ALIKE)} for weigh in (*ALIKE, *WEIGHTS["summed"])))
    return [{"program": program, **style} for style in styles for program in programs]


def _last(losses: list[float], counts: list[int], rows: list[int]) -> float:
    return losses[-1]


ACCUMULATE: Mistakes = {
    **{
        code: [
            form
            for weigh in ways
            for form in ({"weigh": weigh}, *({"weigh": weigh, "report": weighted(w)} for w in (weigh, *ALIKE)))
        ]
        for code, ways in WEIGHTS.items()
        if code != "right"
    },
    "zero_inside": _programs("(ZFB)S", "Z(ZFB)S", "(FZB)S"),
    "step_inside": _programs("Z(FBS)", "(ZFBS)", "(FBSZ)", "Z(FBSZ)", "(FBS)"),
    "running_sum": _programs("Z(FR)S"),
    "last_only": [
        {"program": program, "weigh": weigh, **({"report": report} if report else {})}
        for program in ("Z(F)BS", "(F)ZBS")
        for weigh in (WEIGHTS["right"][0], WEIGHTS["summed"][0], WEIGHTS["by_batches"][0])
        for report in (None, _last)
    ],
    "first_only": [
        {"program": program, "weigh": weigh, "some": slice(1), "report": report}
        for program in ("Z(FB)S", "Z(FB)")
        for weigh in (WEIGHTS["right"][0], WEIGHTS["summed"][0], WEIGHTS["by_batches"][0])
        for report in (_last, MEAN, weighted(weigh))
    ],
    "graphs_kept": each("program", "Z(F)AS"),  # with weights that are right it is no known mistake, see below
    "no_zero_grad": _programs("(FB)S"),
    "zero_at_end": _programs("(FB)SZ"),
    "zero_before_step": _programs("(FB)ZS", "Z(FB)ZS"),
    "no_step": _programs("Z(FB)", "(FB)", "(FB)Z"),
    "no_backward": _programs("Z(F)S", "(F)S"),
    "only_the_loss": _programs("(F)", "Z(F)"),
    "clipped": _programs("Z(FB)CS"),
    "loss_of_the_last": each(
        "report",
        _last,
        lambda losses, counts, rows: losses[-1] * counts[-1] / sum(counts),
        lambda losses, counts, rows: losses[-1] / len(losses),
    ),
    **{f"loss_{code}": each("report", *map(weighted, WEIGHTS[code])) for code in REPORTS},
}


@exercise("pretraining/accumulate")
def accumulate(answer: Answer) -> Mistake | None:
    """answer(model, optimizer, micro_batches) -> the mean loss, after one update as of one large batch."""
    first = [[batch(4, 3, 1), batch(3, 3, 2, ignored=4), batch(1, 3, 3)], [batch(2, 3, 4, ignored=1), batch(3, 3, 5)]]
    even, single = [batch(2, 4, seed) for seed in (6, 7, 8, 9)], [batch(3, 2, 10, ignored=2)]
    found = diagnose_updates(answer, _accumulate, ACCUMULATE, [[(some,) for some in first], [(even,)], [(single,)]])
    if isinstance(found, Mistake):
        return found
    if max(rows for rows, *_ in found.model.passes) > 4:
        return mistake("joined")
    return mistake("graphs_kept") if "FF" in found.model.trace else None
