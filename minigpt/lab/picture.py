"""What every picture shares: the house style, a title that fits, a small PNG, and words beside it.

This module knows nothing of plots: `draw` gives an empty figure to a function that paints on it. `TokenBoxes` needs none.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context
from PIL import Image

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
    "text.parse_math": False,  # a dollar sign in a text of the learner's is a dollar sign
}
# Fonts with Chinese and Japanese, of which most systems have one; matplotlib's own has neither.
EAST_ASIAN = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("PingFang SC", "PingFang HK", "Hiragino Sans GB", "Arial Unicode MS", "Microsoft YaHei", "SimHei"),
)
SHADES = 128  # colours kept in a PNG: a third of the size, and no eye sees the difference
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font without bold letters is no news
_one_at_a_time = threading.Lock()  # the style is global, and a widget may draw while a training does


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
    installed = set(font_manager.get_font_names())
    fonts = {"font.family": ["DejaVu Sans", *(family for family in EAST_ASIAN if family in installed)]}
    with _one_at_a_time, context([STYLE, fonts], after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a character that no font here has is drawn as a box
        figure = Figure(figsize=size, dpi=dpi, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        figure.set_figheight(size[1] + 0.22 * _write_title(figure, title))
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn = drawn.quantize(SHADES, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    drawn.save(buffer := io.BytesIO(), format="png", optimize=True)
    stop = "" if title.endswith((".", "?")) else "."
    return Picture(buffer.getvalue(), f"{title}{stop} {words}" if title else words)


def _write_title(figure: Figure, title: str) -> int:
    """Break the title into lines that fit the figure; returns how many."""
    heading = figure.suptitle("", x=0.01, ha="left", fontsize=12, fontweight="bold")
    for columns in range(int(figure.get_figwidth() * 12), 9, -1):
        lines = textwrap.wrap(title, columns) or [""]
        heading.set_text("\n".join(lines))
        if heading.get_window_extent().width <= 0.97 * figure.bbox.width:
            break
    return len(lines)


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
