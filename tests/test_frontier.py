import itertools
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from minigpt.lab import frontier as module
from minigpt.lab.frontier import MOST_POINTS, best, frontier, show_frontier

POINTS = {
    "fp32": ((22, 22, 22), (17.2, 17.1, 17.3)),
    "int8": ((5.6, 5.5, 5.8), (17.3, 17.2, 17.4)),
    "int4": ((3.1, 3.0, 3.2), (18.0, 17.8, 18.2)),
    "pruned": ((21, 20, 22), (18.9, 18.5, 19.2)),
}
KINDS = {"fp32": "whole", "int8": "rounded", "int4": "rounded", "pruned": "pruned"}
SPEED = {"fp32": 400.0, "int8": 800.0, "int4": 600.0, "pruned": 400.0}
AXES = {"x": "memory (MB)", "y": "perplexity"}


@pytest.fixture
def painted(monkeypatch):
    """Every figure that was drawn."""
    figures, draw = [], module.draw

    def keep(paint, title, words, size):
        paint(figures.append(Figure(size, dpi=90, layout="constrained")) or figures[-1])
        return draw(paint, title, words, size)

    monkeypatch.setattr(module, "draw", keep)
    return figures


def names(figure):
    return {text.get_text(): text for text in figure.axes[0].texts if isinstance(text, Annotation)}


def plain(x, y):
    return (x, x, x), (y, y, y)


def test_the_best_are_those_that_no_other_point_beats_in_both():
    assert best(POINTS) == ["int4", "int8", "fp32"]
    assert best(POINTS, highest=True) == ["int4", "pruned"]
    found = []
    for seed, highest in itertools.product(range(10), (False, True)):
        sign, rng = -1 if highest else 1, np.random.default_rng(seed)
        points = {str(i): plain(*rng.integers(0, 9, 2).tolist()) for i in range(14)}
        places = {(x[0], sign * y[0]) for x, y in points.values()}
        left = {a for a in places if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in places)}
        found.append([(points[name][0][0], sign * points[name][1][0]) for name in best(points, highest)])
        assert found[-1] == sorted(left)
    assert max(map(len, found)) > 3


def test_the_line_goes_along_the_best_and_intervals_both_ways(painted):
    frontier(POINTS, "t", **AXES)
    lines = [tuple(map(tuple, line.get_data())) for line in painted[0].axes[0].lines]
    assert ((3.1, 5.6, 22), (18.0, 17.3, 17.2)) in lines
    for x, y in POINTS.values():
        assert (x[1:], y[:1] * 2) in lines and (x[:1] * 2, y[1:]) in lines
    assert len(lines) == 2 * len(POINTS) + 1
    frontier(POINTS, "t", **AXES, highest=True)
    assert ((3.1, 21), (18.0, 18.9)) in [tuple(map(tuple, line.get_data())) for line in painted[-1].axes[0].lines]


def test_a_kind_has_a_colour_and_a_marker_and_a_third_quantity_an_area(painted):
    frontier(POINTS, "t", **AXES, kinds=KINDS, sizes=SPEED, size="tokens a second")
    marks = dict(zip(POINTS, painted[0].axes[0].collections))
    assert len({tuple(mark.get_facecolor()[0]) for mark in marks.values()}) == 3
    assert len({mark.get_paths()[0].vertices.shape for mark in marks.values()}) == 3
    areas = {name: mark.get_sizes()[0] / marks["int8"].get_sizes()[0] for name, mark in marks.items()}
    assert areas == {"fp32": 0.5, "int8": 1, "int4": 0.75, "pruned": 0.5}
    told = [text.get_text() for text in painted[0].legends[0].get_texts()]
    assert told == [
        "whole",
        "rounded",
        "pruned",
        "no other point is better in both",
        "area: tokens a second, at most 800",
    ]


def test_axes_may_be_logarithmic_with_plain_numbers(painted):
    frontier(POINTS, "t", **AXES, logx=True, logy=True)
    axes = painted[0].axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    painted[0].draw_without_rendering()
    assert all(re.fullmatch(r"[\d.,]*", label.get_text()) for label in axes.get_xticklabels())


@pytest.mark.parametrize("seed", range(3))
def test_names_of_many_points_cover_neither_each_other_nor_a_marker_and_stay_inside(painted, seed):
    rng = np.random.default_rng(seed)
    points = {f"method {i}": plain(*rng.uniform(1, 9, 2).tolist()) for i in range(10)}
    points |= {f"close {i}": plain(5 + 0.2 * i, 5 + 0.1 * (i % 2)) for i in range(MOST_POINTS - 10)}
    frontier(points, "t", **AXES)
    (figure,) = painted
    FigureCanvasAgg(figure).draw()
    labels, axes = names(figure), figure.axes[0]
    boxes = [Text.get_window_extent(label) for label in labels.values()]  # of the letters, without threads
    assert labels.keys() == points.keys()
    assert not [pair for pair in itertools.combinations(boxes, 2) if _overlap(*pair)]
    at = axes.transData.transform([(x[0], y[0]) for x, y in points.values()])
    assert not [point for box in boxes for point in at if box.contains(*point)]
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    far = [np.linalg.norm(np.clip(point, box.min, box.max) - point) for box, point in zip(boxes, at)]
    assert max(far) < 60 and np.median(far) < 12


def _overlap(one, other):
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def test_it_says_in_words_what_it_shows_and_names_no_number():
    words = frontier(POINTS, "Four bits suffice", **AXES).words
    assert words == (
        "Four bits suffice. Scatter plot of perplexity against memory (MB), with intervals both ways and a line along the "
        "best: fp32, int8, int4, pruned."
    )


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ({}, {}, "there are 0 points; give at least one"),
        ({str(i): plain(i, i) for i in range(17)}, {}, "there are 17 points"),
        ({"a": ((1, 2, 3), (1, 1, 1))}, {}, "x of a is 1 in 2 to 3"),
        ({"a": ((1, 1, 1), (1, 1, np.inf))}, {}, "y of a is 1 in 1 to inf"),
        ({"a": ((np.nan, 0, 1), (1, 1, 1))}, {}, "x of a is nan"),
        ({"a": ((1, 0, 2), (1, 1, 1))}, {"logx": True}, "x of a begins at 0, and a logarithmic axis"),
        (POINTS, {"kinds": {"fp32": "whole"}}, "kinds says nothing of int8, int4, pruned"),
        (POINTS, {"sizes": SPEED | {"int8": 0.0}}, "a size is zero"),
        (POINTS, {"kinds": {name: name for name in POINTS}, "sizes": {}}, "sizes says nothing of fp32"),
    ],
)
def test_what_cannot_be_drawn_is_told(points, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        show_frontier(points, "t", **AXES, **options)
