"""The kinds of picture: bars, lines, heat maps, grids of them, a training's loss, tokens as boxes.

Each has a title that states the finding and axes with units, and comes in two forms: `bars` returns a `Picture`,
`show_bars` shows it. Its words name no measured number, so that they are the same on every machine. Values may be
lists, NumPy arrays or tensors; what is NaN or infinite is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import AutoLocator, LogLocator, MaxNLocator, NullLocator

from minigpt.lab.picture import COLOURS, Picture, TokenBoxes, draw

LONGEST_NAME = 24  # letters of a tick's name
WHOLE = {"integer": True, "steps": [1, 2, 5, 10]}  # where ticks may stand


def numbers(values: Any) -> np.ndarray:
    """Any list, array or tensor as a NumPy array of floats."""
    if hasattr(values, "detach"):
        return values.detach().double().cpu().numpy()
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values):
        return np.array([numbers(value) for value in values])
    return np.asarray(values, dtype=float)


def _row(values: Any, name: str) -> np.ndarray:
    row = numbers(values)
    if row.ndim != 1:
        raise ValueError(f"{name} take one row of numbers, and these values have shape {row.shape}.")
    return np.where(np.isfinite(row), row, np.nan)


def _matrix(values: Any) -> np.ndarray:
    table = numbers(values)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"a heat map takes rows and columns, and these values have shape {table.shape}.")
    return table


def _one_each(labels: Sequence[str] | None, count: int, kind: str) -> None:
    if labels is not None and len(labels) != count:
        raise ValueError(f"there are {len(labels)} labels for {count} {kind}; give each one a label.")


def _name_ticks(axis: Axis, names: Sequence[str], room: float) -> None:
    """Names at 0, 1, 2 and so on: upright where `room` inches for each are enough, else turned."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    needed = max(map(len, names), default=0) * 0.085  # inches, in the smaller of two sizes
    axis.set_ticks(range(len(names)), names, fontsize=11 if 1.25 * needed < room < np.inf else 9)
    if needed > room:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if room > 0.22 else {"rotation": 90}
        for label in axis.get_ticklabels():
            label.set(**turned)


def _name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(textwrap.fill(y, max(16, int(9.5 * axes.figure.get_figheight()))))


def bars(
    values: Any, title: str, *, x: str, y: str, labels: Sequence[str] | None = None, highlight: int | None = None
) -> Picture:
    """A bar for each value; `highlight` is the index of one to set apart. ValueError unless each has a label or none."""
    heights = _row(values, "bars")
    _one_each(labels, len(heights), "bars")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(range(len(heights)), heights, color=[COLOURS[i == highlight] for i in range(len(heights))])
        _name_axes(axes, x, y)
        margin = max(0.6, (6 - len(heights)) / 2)  # a bar alone stays a bar
        axes.set_xlim(-margin, len(heights) - 1 + margin)
        if (heights < 0).any():
            axes.axhline(0, color="black", linewidth=0.8)
        if labels is not None:
            _name_ticks(axes.xaxis, labels, room=6.2 / max(6, len(labels)))
        elif len(heights) <= 20:
            axes.set_xticks(range(len(heights)))
        axes.grid(axis="x", visible=False)

    return draw(paint, title, f"Bar chart of {y} by {x}, {len(heights)} bars.")


def lines(
    series: Any,
    title: str,
    *,
    x: str,
    y: str,
    logx: bool = False,
    logy: bool = False,
    level: tuple[float, str] | None = None,
) -> Picture:
    """Curves: `{label: (xs, ys)}`, `{label: ys}` or bare `ys`. `level` is a (value, label) drawn across."""
    curves = {}
    for label, points in (series if isinstance(series, Mapping) else {"": series}).items():
        both = isinstance(points, tuple) and len(points) == 2 and np.ndim(points[0])
        ys = _row(points[1] if both else points, "curves")
        curves[label] = (_row(points[0], "curves") if both else np.arange(len(ys)), ys)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, (xs, ys)) in enumerate(curves.items()):
            marker = "os^DvPX"[i % len(COLOURS)] if len(ys) <= 12 else None
            dashes = ["-", "--", ":", "-."][i // len(COLOURS) % 4]
            axes.plot(xs, ys, dashes, color=COLOURS[i % len(COLOURS)], label=label, marker=marker)
        across, up = ({value for curve in curves.values() for value in curve[i] if value > 0} for i in (0, 1))
        if all(value == int(value) for value in across):
            axes.xaxis.set_major_locator(MaxNLocator(**WHOLE))
        if logx and across:
            axes.set_xscale("log")
            _plain_log_ticks(axes.xaxis, across)
        if logy and up:
            axes.set_yscale("log")
            _plain_log_ticks(axes.yaxis)
        _finish(axes, x, y, level, legend=len(curves) > 1 or level is not None)

    names = ", ".join(label for label in curves if label)
    return draw(paint, title, f"Line chart of {y} against {x}{': ' + names if names else ''}.")


def _plain_log_ticks(axis: Axis, points: set[float] = frozenset()) -> None:
    """Plain numbers on a logarithmic axis, at the `points` themselves where they are few."""
    low, high = axis.get_view_interval()
    if 2 <= len(points) <= 8:
        axis.set_ticks(sorted(points))
    elif high < 10 * low:
        axis.set_major_locator(AutoLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,g}")


def _finish(axes: Axes, x: str, y: str, level: tuple[float, str] | None, legend: bool) -> None:
    _name_axes(axes, x, y)
    if level is not None:
        axes.axhline(level[0], color="#555555", linestyle="--", linewidth=1.2, label=level[1])
    if legend and len(axes.lines) > 3:  # no corner is free of curves
        axes.figure.legend(loc="outside right center")
    elif legend:
        axes.legend()


def heatmap(
    matrix: Any,
    title: str,
    *,
    x: str,
    y: str,
    xticks: Sequence[str] | None = None,
    yticks: Sequence[str] | None = None,
    values: bool | None = None,
) -> Picture:
    """A matrix as colours, row 0 on top; cells that are no number are hatched. Around zero, blue is below, red above.

    `values` writes each number into its cell (by default when they fit). ValueError unless there are rows and columns,
    and a label for each where there are any.
    """
    table = _matrix(matrix)
    rows, columns = table.shape
    _one_each(xticks, columns, "columns")
    _one_each(yticks, rows, "rows")
    height = min(7.0, max(2.6, 0.32 * rows + 1.2))
    width = min(8.0, max(4.6, height * columns / rows + 1.2))
    write = values if values is not None else table.size <= 100 and rows <= 18 and columns <= 12

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        image = _paint_matrix(axes, table, **_scale([table]))
        figure.colorbar(image, ax=axes, shrink=0.85)
        _name_axes(axes, x, y)
        for axis, names, room in ((axes.xaxis, xticks, (width - 1.8) / columns), (axes.yaxis, yticks, np.inf)):
            if names is None:
                axis.set_major_locator(MaxNLocator(**WHOLE))
            else:
                _name_ticks(axis, names, room)
        if write:
            _write_values(axes, image, table)

    words = f"Heat map of {rows} rows ({y}) by {columns} columns ({x})."
    return draw(paint, title, words, size=(width, height))


def _scale(tables: Sequence[np.ndarray]) -> dict[str, Any]:
    """One range of colours for all tables: a ramp, or two hues around white where the numbers lie around zero."""
    finite = np.concatenate([table[np.isfinite(table)] for table in tables])
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if min(-low, high) > 0.01 * max(-low, high):
        return {"cmap": "RdBu_r", "vmin": -max(-low, high), "vmax": max(-low, high)}
    return {"cmap": "cividis", "vmin": low, "vmax": high}


def _paint_matrix(axes: Axes, table: np.ndarray, **scale: Any) -> AxesImage:
    axes.grid(visible=False)
    axes.patch.set(facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="////")  # shows through where there is no number
    return axes.imshow(np.ma.masked_invalid(table), aspect="auto", **scale)


def _write_values(axes: Axes, image: AxesImage, table: np.ndarray) -> None:
    decimals = 2 if np.abs(table[np.isfinite(table)]).max(initial=0) < 100 else 0
    red, green, blue, drawn = np.moveaxis(image.to_rgba(np.ma.masked_invalid(table)), -1, 0)
    dark = (0.30 * red + 0.59 * green + 0.11 * blue < 0.45) & (drawn > 0)
    for (row, column), value in np.ndenumerate(table):
        colour = "white" if dark[row, column] else "black"
        text = f"{value:.{decimals}f}".replace("-0.00", "0.00")
        axes.text(column, row, text, ha="center", va="center", color=colour)


def grid(matrices: Any, title: str, *, labels: Sequence[str], x: str, y: str) -> Picture:
    """Small multiples: one heat map each for (N, R, C) values, such as the attention of every head, on one scale.

    ValueError unless there is a matrix, and a label for each.
    """
    tables = [_matrix(matrix) for matrix in matrices]
    if not tables:
        raise ValueError("a grid takes at least one matrix, and there is none.")
    _one_each(labels, len(tables), "pictures")
    columns = min(6, len(tables))
    rows = -(-len(tables) // columns)

    def paint(figure: Figure) -> None:
        every, scale = figure.subplots(rows, columns, squeeze=False), _scale(tables)
        for axes, table, label in zip(every.flat, tables, labels):
            image = _paint_matrix(axes, table, **scale)
            axes.set_title(label, fontsize=9)
            axes.set(xticks=[], yticks=[])
        for axes in every.flat[len(tables) :]:
            axes.set_axis_off()
        figure.colorbar(image, ax=every, shrink=0.85)
        figure.supxlabel(x, fontsize=10)
        figure.supylabel(y, fontsize=10)

    words = f"{len(tables)} small heat maps ({', '.join(labels)}), {y} down and {x} across."
    return draw(paint, title, words, size=(1.2 * max(2, columns) + 1.0, 1.35 * rows + 0.4))


def loss(history: Any, title: str, level: tuple[float, str] | None = None, max_steps: int | None = None) -> Picture:
    """Training and validation loss of a `History` against updates; an axis up to `max_steps` leaves room for the rest."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        if not history["train_loss"][0]:
            axes.text(0.5, 0.5, "no update yet", ha="center", va="center", color="#555555", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
        looks = {
            "train_loss": {"color": COLOURS[0], "alpha": 0.35, "linewidth": 1, "label": "training, each batch"},
            "val_loss": {"color": COLOURS[1], "marker": "o", "label": "validation"},
        }
        for name, look in looks.items():
            if history[name][0]:
                axes.plot(*history[name], **look)
        if max_steps is not None and axes.lines:
            axes.set_xlim(0, max_steps)
        _finish(axes, "updates", "loss (nats per token)", level, legend=bool(axes.lines))

    return draw(paint, title, "Line chart of the training and validation loss in nats per token against updates.")


def tokens(pieces: Sequence[str], title: str = "") -> TokenBoxes:
    """Pieces of text as coloured boxes, so that the cuts can be seen."""
    return TokenBoxes(list(pieces), title)


def _shown(make: Callable[..., Any]) -> Callable[..., None]:
    def show(*arguments: Any, **options: Any) -> None:
        display(make(*arguments, **options))

    show.__doc__ = f"Show: {make.__doc__}"
    return show


show_bars, show_lines, show_heatmap, show_grid = map(_shown, (bars, lines, heatmap, grid))
show_loss, show_tokens = map(_shown, (loss, tokens))
