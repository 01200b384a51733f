"""One look for every picture: safe for colour-blind eyes, a title that states the finding, axes with units, words beside it.

Each function shows a `Picture`: a PNG and, as its text, what is drawn. The text names no measured number, so that it is
the same on every machine. Values may be lists, NumPy arrays or tensors.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context

# Okabe & Ito (2008): told apart with any kind of colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


class Picture:
    """A drawn figure that shows itself as a PNG, with words for those who cannot see it."""

    def __init__(self, png: bytes, words: str):
        self.png, self.words = png, words

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Data and metadata by MIME type, as Jupyter wants them."""
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.words}
        return data, {"image/png": {"alt": self.words}}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle()

    def __repr__(self) -> str:
        return self.words


def draw(
    paint: Callable[[Figure], None], title: str, words: str, size: tuple[float, float] = (7, 3.4), dpi: int = 90
) -> Picture:
    """Call `paint` on an empty figure in the house style and wrap the result. `size` in inches, without the title."""
    lines = textwrap.wrap(title, int(size[0] * 11)) or [""]
    with context(STYLE, after_reset=True):
        figure = Figure(figsize=(size[0], size[1] + 0.22 * len(lines)), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return Picture(buffer.getvalue(), f"{title.rstrip('.')}. {words}")


def numbers(values: Any) -> np.ndarray:
    """Any list, array or tensor as a NumPy array of floats."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=float)


def bars(
    values: Any, title: str, *, x: str, y: str, labels: Sequence[str] | None = None, highlight: int | None = None
) -> Picture:
    """A bar for each value; `highlight` is the index of one to set apart."""
    heights = numbers(values)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        colours = [COLOURS[i == highlight] for i in range(len(heights))]
        axes.bar(range(len(heights)), heights, color=colours)
        axes.set(xlabel=x, ylabel=y)
        if labels is not None:
            axes.set_xticks(range(len(labels)), labels, rotation=0 if sum(map(len, labels)) < 60 else 60)
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
    curves = series if isinstance(series, Mapping) else {"": series}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, points) in enumerate(curves.items()):
            xs, ys = points if isinstance(points, tuple) else (range(len(points)), points)
            marker = "o" if len(ys) <= 12 else None
            dashes = ["-", "--", ":", "-."][i // len(COLOURS) % 4]
            axes.plot(numbers(xs), numbers(ys), dashes, color=COLOURS[i % len(COLOURS)], label=label, marker=marker)
        _finish(axes, x, y, logx, logy, level, legend=len(curves) > 1 or level is not None)

    names = ", ".join(label for label in curves if label)
    return draw(paint, title, f"Line chart of {y} against {x}{': ' + names if names else ''}.")


def _finish(axes: Axes, x: str, y: str, logx: bool, logy: bool, level: tuple[float, str] | None, legend: bool) -> None:
    axes.set(xlabel=x, ylabel=y, **({"xscale": "log"} if logx else {}), **({"yscale": "log"} if logy else {}))
    if level is not None:
        axes.axhline(level[0], color="#555555", linestyle="--", linewidth=1.2, label=level[1])
    if legend:
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
    """A matrix as colours, row 0 on top. `values` writes each number into its cell (by default when they fit)."""
    table = numbers(matrix)
    write = values if values is not None else table.size <= 100

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _paint_matrix(figure, axes, table, xticks, yticks)
        axes.set(xlabel=x, ylabel=y)
        if write:
            middle = (np.nanmin(table) + np.nanmax(table)) / 2
            for (row, column), value in np.ndenumerate(table):
                colour = "white" if value < middle else "black"
                axes.text(column, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", color=colour)

    height = min(7.0, max(2.6, 0.32 * table.shape[0] + 1.2))
    words = f"Heat map of {table.shape[0]} rows ({y}) by {table.shape[1]} columns ({x})."
    return draw(paint, title, words, size=(min(8.0, max(4.6, height * table.shape[1] / table.shape[0] + 1.2)), height))


def _paint_matrix(figure: Figure, axes: Axes, table: np.ndarray, xticks: Any = None, yticks: Any = None) -> None:
    shown = np.ma.masked_invalid(table)
    image = axes.imshow(shown, cmap="cividis", aspect="auto")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, shrink=0.85)
    if xticks is not None:
        axes.set_xticks(range(len(xticks)), xticks, rotation=90 if len(xticks) > 10 else 0, fontsize=9)
    if yticks is not None:
        axes.set_yticks(range(len(yticks)), yticks, fontsize=9)


def grid(matrices: Any, title: str, *, labels: Sequence[str], x: str, y: str) -> Picture:
    """Small multiples: one heat map each for (N, R, C) values, such as the attention of every head."""
    tables = [numbers(matrix) for matrix in matrices]
    columns = min(6, len(tables))
    rows = -(-len(tables) // columns)

    def paint(figure: Figure) -> None:
        for axes, table, label in zip(figure.subplots(rows, columns, squeeze=False).flat, tables, labels):
            axes.imshow(table, cmap="cividis", aspect="auto")
            axes.set_title(label, fontsize=9)
        for axes in figure.axes:
            axes.set_axis_off()

    words = f"{len(tables)} small heat maps ({', '.join(labels)}), {y} down and {x} across."
    return draw(paint, title, words, size=(8, 1.45 * rows + 0.2))


def loss(history: Any, title: str, level: tuple[float, str] | None = None) -> Picture:
    """Training and validation loss of a `History` against the number of updates."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        steps, values = history["train_loss"]
        axes.plot(steps, values, color=COLOURS[0], alpha=0.35, linewidth=1, label="training, each batch")
        steps, values = history["val_loss"]
        axes.plot(steps, values, color=COLOURS[1], marker="o", label="validation")
        _finish(axes, "updates", "loss (nats per token)", False, False, level, legend=True)

    return draw(paint, title, "Line chart of the training and validation loss in nats per token against updates.")


def tokens(pieces: Sequence[str], title: str = "") -> TokenBoxes:
    """Pieces of text as coloured boxes, so that the cuts can be seen."""
    return TokenBoxes(list(pieces), title)


class TokenBoxes:
    """Token strings as boxes in HTML, and with bars between them as text."""

    def __init__(self, pieces: list[str], title: str):
        self.pieces, self.title = pieces, title

    def _repr_html_(self) -> str:
        tints = ["#cfe3f2", "#f8dcc8", "#cdebdf", "#f0dae6"]
        boxes = "".join(
            f'<span style="background:{tints[i % 4]};color:#111;border-radius:3px;padding:1px 2px;margin:1px;'
            f'display:inline-block;font-family:monospace">{html.escape(piece)}</span>'
            for i, piece in enumerate(self.pieces)
        )
        return f"<b>{html.escape(self.title)}</b><div>{boxes}</div>"

    def __repr__(self) -> str:
        return f"{self.title}\n{'|'.join(self.pieces)}".strip()


def _shown(make: Callable[..., Any]) -> Callable[..., None]:
    def show(*arguments: Any, **options: Any) -> None:
        display(make(*arguments, **options))

    show.__doc__ = f"Show: {make.__doc__}"
    return show


show_bars, show_lines, show_heatmap, show_grid = map(_shown, (bars, lines, heatmap, grid))
show_loss, show_tokens = map(_shown, (loss, tokens))
