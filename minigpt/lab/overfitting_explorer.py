"""Recorded trainings to look through: another model, text or dropout, and a patience that would have ended them earlier.

Where a run would have ended is asked of the rule that ends one, `EarlyStopping`; nothing is trained here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minigpt.early_stopping import EarlyStopping
from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.widgets import NATURAL, OWN_SIZE, ROW, WIDE, _show

RECORDED = {"n_embd": "Parameters", "share": "Text", "dropout": "Dropout"}  # what a run is found by
RULE = {"patience": "Patience", "min_delta": "min_delta"}  # what ends it
STOPS = {"patience": tuple(range(9)), "min_delta": (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)}
START = {"patience": 3, "min_delta": 0.0}
PALE = 0.3  # what early stopping would not have computed
MOST_DOTS = 40  # beyond that they run into each other
HALF = ipywidgets.Layout(flex="1 1 220px", min_width="0", max_width="340px")
BELOW = 'style="line-height:1.4;max-width:720px;overflow-wrap:anywhere"'
TITLES = {  # each fits one line
    "whole": "Without early stopping the whole run is computed, and its end is kept",
    "never": "The patience lasts to the end of the run, and the best weights are kept",
    "well": "Stopped after the best: what is pale need not be computed",
    "early": "Stopped too early: the best was still to come",
    "blind": "The best is not kept: min_delta does not count it as better",
    "missing": "No run was recorded for this choice",
}


class Run(NamedTuple):
    """A recorded training: its choices, and the losses (N) after `steps` updates (N)."""

    n_embd: int
    share: float
    dropout: float
    parameters: int
    steps: np.ndarray
    train: np.ndarray
    val: np.ndarray

    @classmethod
    def of(cls, row: Mapping[str, Any], number: int) -> Run:
        """From a dict. ValueError, with the row's number, where it is no training that can be drawn."""
        if missing := [name for name in cls._fields if name not in row]:
            raise ValueError(f"row {number} has no {', '.join(missing)}; each row needs {', '.join(cls._fields)}.")
        steps, train, val = (np.array(row[name], dtype=float) for name in ("steps", "train", "val"))
        if not steps.shape == train.shape == val.shape or steps.ndim != 1 or not steps.size:
            found = f"{steps.size} steps, {train.size} training and {val.size} validation losses"
            raise ValueError(f"row {number} has {found}; give one of each for every evaluation, and at least one.")
        if not (np.diff(steps) > 0).all():
            raise ValueError(f"the steps of row {number} do not rise; give the evaluations in the order of the run.")
        if not np.isfinite(val[[0, -1]]).all():
            raise ValueError(
                f"the validation loss of row {number} goes from {val[0]} to {val[-1]}; leave out a run that diverged."
            )
        train, val = (np.where(np.isfinite(losses), losses, np.nan) for losses in (train, val))
        return cls(*(row[name] for name in cls._fields[:4]), steps, train, val)

    @property
    def best(self) -> int:
        """Which evaluation has the lowest validation loss."""
        return int(np.nanargmin(self.val))


class End(NamedTuple):
    """Where a run ends, and how: its last evaluation, the one whose weights are kept, and a key of `TITLES`."""

    last: int
    kept: int
    stopped: bool
    how: str

    @classmethod
    def of(cls, run: Run, patience: int, min_delta: float) -> End:
        """By the rule that the trainer goes by; without patience the run goes to its end."""
        last = len(run.steps) - 1
        if not patience:
            return cls(last, last, False, "whole")
        rule = EarlyStopping(patience, min_delta)
        evaluations = enumerate(zip(run.steps.astype(int).tolist(), run.val.tolist()))
        stop = next((i for i, (step, loss) in evaluations if rule.update(step, loss)), None)
        kept = run.steps.tolist().index(rule.best_step)
        if stop is not None and run.best > stop:
            how = "early"
        else:
            how = "blind" if run.val[kept] > run.val[run.best] else "never" if stop is None else "well"
        return cls(last if stop is None else stop, kept, stop is not None, how)


class OverfittingExplorer:
    """Recorded runs, the sliders that choose one, and those that end it. See `overfitting_explorer`."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], start: Mapping[str, float] | None = None):
        self.runs: dict[tuple[float, ...], Run] = {}
        for number, row in enumerate(rows):
            run = Run.of(row, number)
            if self.runs.setdefault(run[:3], run) is not run:
                raise ValueError(f"row {number} is a second run with {_words(*run[:4])}; keep one of them.")
        if not self.runs:
            raise ValueError("there is no run to look at; pass a list with a dict for each recorded run.")
        self.sizes = {run.n_embd: run.parameters for run in self.runs.values()}
        overfitted = max(self.runs.values(), key=lambda run: run.val[-1] - run.val[run.best])
        begin = {**dict(zip(RECORDED, overfitted)), **START, **(start or {})}
        if unknown := begin.keys() - {*RECORDED, *RULE}:
            raise ValueError(f"start has {', '.join(sorted(unknown))}; it may have {', '.join((*RECORDED, *RULE))}.")
        self.sliders = {name: self._slider(name, value) for name, value in begin.items()}
        self.limits = _limits(list(self.runs.values()))
        self.run, self.before = self._find(), None  # before: the run of the last move, to compare with
        self.image, self.told = ipywidgets.Image(format="png", layout=OWN_SIZE), ipywidgets.HTML(layout=WIDE)
        rows_of_sliders = [
            ipywidgets.HBox([self.sliders[name] for name in group if len(self.sliders[name].options) > 1], layout=ROW)
            for group in (RECORDED, RULE)  # with one stop it cannot be moved
        ]
        self.box = ipywidgets.VBox([*rows_of_sliders, self.image, self.told])
        for slider in self.sliders.values():
            slider.observe(lambda _: self._draw(), names="value")
        self._draw()

    def _slider(self, name: str, value: float) -> ipywidgets.SelectionSlider:
        values = {*STOPS[name], value} if name in RULE else {getattr(run, name) for run in self.runs.values()}
        if value not in values or value < 0 or (name == "patience" and value != int(value)):
            raise ValueError(f"start has {name}={value!r}; choose one of {', '.join(map(str, sorted(values)))}.")
        options = [(_value(name, one, self.sizes), one) for one in sorted(values)]
        look = {"description": (RECORDED | RULE)[name], "style": NATURAL, "layout": HALF}
        return ipywidgets.SelectionSlider(options=options, value=value, **look)

    def _find(self, **moved: float) -> Run | None:
        """The run that the sliders choose, with some of them elsewhere."""
        return self.runs.get(tuple(moved.get(name, self.sliders[name].value) for name in RECORDED))

    def end(self, run: Run) -> End:
        """Where a run ends under the patience and the min_delta of the sliders."""
        return End.of(run, *(self.sliders[name].value for name in RULE))

    def picture(self) -> Picture:
        """The curves of the chosen run, and where it ends."""

        def paint(figure: Figure) -> None:
            figure.set_layout_engine("none")  # axes that keep their place: comparable, and drawn in half the time
            axes = figure.add_axes((0.085, 0.145, 0.645, 0.735))
            axes.set(**self.limits, xlabel="updates", ylabel="loss (nats per token)")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_major_locator(MaxNLocator(6))
            if self.run is None:
                axes.text(0.5, 0.5, "no run recorded", ha="center", color="#555555", transform=axes.transAxes)
            else:
                self._paint_run(axes, self.run)
            if self.before is not None:
                look = {"color": "#a0a0a0", "linewidth": 1.4, "label": "validation of the\nrun you came from"}
                axes.plot(self.before.steps, self.before.val, zorder=1.5, **look)
            if axes.lines:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1.04), labelspacing=0.9)

        title = TITLES[self.end(self.run).how if self.run else "missing"]
        words = "Overfitting explorer. Line chart of the training and validation loss of a recorded run against updates"
        return draw(paint, title, f"{words}: {self._choice()}.", size=(8, 3.4))

    def _paint_run(self, axes: Axes, run: Run) -> None:
        end, dots = self.end(run), "o" if len(run.steps) <= MOST_DOTS else None
        for name, values, colour, marker in (("training", run.train, 0, None), ("validation", run.val, 1, dots)):
            look = {"color": COLOURS[colour], "marker": marker, "markersize": 4}
            axes.plot(run.steps[end.last :], values[end.last :], alpha=PALE, **look)
            axes.plot(run.steps[: end.last + 1], values[: end.last + 1], label=name, **look)
        look = {"linestyle": "none", "markeredgecolor": "black", "zorder": 5}
        star = {"marker": "*", "markersize": 14, "color": COLOURS[4], "label": "lowest\nvalidation loss"}
        ring = {"marker": "o", "markersize": 19, "color": "none", "label": "weights that\nare kept"}
        for at, mark in ((run.best, star), (end.kept, ring)):
            axes.plot(run.steps[at], run.val[at], **look, **mark)
        if end.stopped:
            axes.axvspan(run.steps[end.last], self.limits["xlim"][1], color="#00000014", linewidth=0)
            look = {"color": "black", "linestyle": "--", "linewidth": 1.4, "label": "early stopping\nends the run"}
            axes.axvline(run.steps[end.last], **look)

    def _draw(self) -> None:
        run = self._find()
        if run is not self.run:
            self.before, self.run = self.run or self.before, run
        self.image.value = self.picture().png
        told = html.escape(self._outcome(run) if run else self._near())
        self.told.value = f"<div {BELOW}><b>{html.escape(self._choice())}.</b> {told}</div>"

    def _choice(self) -> str:
        values = [self.sliders[name].value for name in RECORDED]
        return _words(*values, self.run.parameters if self.run else self.sizes[values[0]])

    def _outcome(self, run: Run) -> str:
        """In words: the best, where the run ends, what that saves and what it loses."""
        end, (patience, min_delta) = self.end(run), (self.sliders[name].value for name in RULE)
        updates, last = f"{int(run.steps[-1]):,} updates", run.steps[end.last]
        rule = f"A patience of {patience}" + f" with a min_delta of {min_delta:g}" * (min_delta > 0)
        if end.stopped:
            ends = (
                f"{rule} ends the run after {int(last):,} of {updates} and saves {1 - last / run.steps[-1]:.0%} of them"
            )
        else:
            ends = (
                f"{rule} is never used up, and all {updates} are computed"
                if patience
                else f"All {updates} are computed"
            )
        lost = run.val[end.kept] - run.val[run.best]
        losing = "; nothing is lost, for the best weights are kept."
        if lost:
            losing = (
                f"; the weights kept are those after {int(run.steps[end.kept]):,} updates, with {run.val[end.kept]:.3f}: "
                f"{f'{lost:.3f}' if lost >= 0.001 else 'less than 0.001'} nats per token are lost."
            )
        best = f"The validation loss is lowest, {run.val[run.best]:.3f}, after {int(run.steps[run.best]):,} updates."
        return f"{best} {ends}{losing}"

    def _near(self) -> str:
        """In words: there is no such run, and which of the sliders leads to one."""
        near = []
        for name, title in RECORDED.items():
            there = [label for label, value in self.sliders[name].options if self._find(**{name: value})]
            near += [f"{title} to {' or '.join(there)}"] * bool(there)
        return f"No such run was recorded. Move {', or '.join(near) or 'two of the sliders'}."


def _limits(runs: list[Run]) -> dict[str, tuple[float, float]]:
    """Of both axes, for all runs alike. The first fall comes in from above, else all that follows would look flat."""
    high = max(max(np.nanmax(run.val[run.best :]), np.nanmedian(run.val)) for run in runs)
    low = min(np.nanmin([run.train, run.val]) for run in runs)
    first, last = min(run.steps[0] for run in runs), max(run.steps[-1] for run in runs)
    room, margin = (last - first) or 1, (high - low) or 1
    return {"xlim": (first - 0.02 * room, last + 0.03 * room), "ylim": (low - 0.08 * margin, high + 0.08 * margin)}


def _value(name: str, value: float, sizes: Mapping[float, int]) -> str:
    """As a slider shows it."""
    if name == "n_embd":
        return _count(sizes[value])
    if name == "share":
        return _part(value)
    return "off" if name == "patience" and not value else f"{value:g}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def _part(share: float) -> str:
    part = Fraction(float(share)).limit_denominator(64)
    simple = part.numerator == 1 and abs(part - share) < 1e-3
    return ("all" if share == 1 else str(part)) if simple else f"{share:.0%}"


def _words(n_embd: float, share: float, dropout: float, parameters: int) -> str:
    text = "all of the text" if share == 1 else f"{_part(share)} of the text"
    return f"Width {n_embd:g} ({_count(parameters)} parameters), {text}, dropout {dropout:g}"


def overfitting_explorer(rows: Sequence[Mapping[str, Any]], start: Mapping[str, float] | None = None) -> None:
    """Show recorded runs as curves: sliders choose model, data and dropout, and the patience that would have ended them.

    Args:
        rows: a dict for each run with n_embd, share (of the text), dropout and parameters, and for its evaluations the
            equally long lists steps (updates), train and val (nats per token).
        start: where sliders stand at first, by n_embd, share, dropout, patience and min_delta; by default at the run
            whose validation loss rises the most, with a patience of 3.

    Raises:
        ValueError: no row, a row that is no run, two for the same choice, or a start that no slider has.
    """
    made = OverfittingExplorer(rows, start)
    _show(made.box, made.picture())
