"""A forest plot: values with their intervals, one below the other, so that one sees which of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.plots import _shown


def forest(
    rows: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str,
    *,
    x: str,
    level: tuple[float, str] | None = None,
) -> Picture:
    """Each name with one or more (value, low, high), such as one for each seed; `level` is a (value, label) to compare with.

    Raises:
        ValueError: no row, or a row without a value.
    """
    if not rows or not all(rows.values()):
        raise ValueError("a forest plot takes at least one row, and each row at least one (value, low, high).")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for place, intervals in enumerate(rows.values()):
            for number, (value, low, high) in enumerate(intervals):
                at = place + min(0.22, 0.7 / len(intervals)) * (number - (len(intervals) - 1) / 2)
                axes.plot([low, high], [at, at], color=COLOURS[0], alpha=0.6)
                axes.plot([value], [at], "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
        axes.set_xlabel(x)
        axes.grid(axis="y", visible=False)
        if level is not None:
            axes.axvline(level[0], color="#555555", linestyle="--", linewidth=1.2, label=level[1])
            axes.legend()

    words = f"Forest plot of {x}, with an interval for each of: {', '.join(rows)}."
    return draw(paint, title, words, size=(7, 0.45 * len(rows) + 1.0))


show_forest = _shown(forest)
