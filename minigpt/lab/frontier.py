"""What one quantity costs in another: named points with intervals both ways, and those of them that no other beats."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.plots import _plain_log_ticks, _shown

Interval = tuple[float, float, float]  # a value, and from where to where it may lie
MOST_POINTS = 16  # whose names find room
MARKERS = "os^DvPX"
AREA, LARGEST = 45, 420  # square points: of a marker, and of the largest bubble
AWAY = (3, 10, 20, 34)  # points from a marker to its name, nearest first
SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))  # right first, as one reads


def best(points: Mapping[str, tuple[Interval, Interval]], highest: bool = False) -> list[str]:
    """The names that no other point beats, by rising x (Pareto): less is better in x, and in y unless `highest`."""
    sign, found, least = -1 if highest else 1, [], np.inf
    for name, (_, (y, *_)) in sorted(points.items(), key=lambda item: (item[1][0][0], sign * item[1][1][0])):
        if sign * y < least:
            found, least = [*found, name], sign * y
    return found


def frontier(
    points: Mapping[str, tuple[Interval, Interval]],
    title: str,
    *,
    x: str,
    y: str,
    highest: bool = False,
    kinds: Mapping[str, str] | None = None,
    sizes: Mapping[str, float] | None = None,
    size: str = "",
    logx: bool = False,
    logy: bool = False,
) -> Picture:
    """Points by name as ((x, low, high), (y, low, high)), with a thin line along those that no other beats (`best`).

    Args:
        highest: whether more y is better; less x always is.
        kinds: of which kind each point is: a colour and a marker.
        sizes: a third quantity, as the area of a bubble, which the largest value fills; `size` says what it is.

    Raises:
        ValueError: no point or more than `MOST_POINTS`, a value that is not finite or lies outside its interval, a point
            without kind or size, a size that is not positive, or a number that is not positive on a logarithmic axis.
    """
    _check(points, logx, logy)
    for what, given in (("kinds", kinds), ("sizes", sizes)):
        if missing := [name for name in points if given is not None and name not in given]:
            raise ValueError(
                f"{what} says nothing of {', '.join(missing)}; give one for each point, or leave {what} out."
            )
    if sizes is not None and not all(0 < sizes[name] < np.inf for name in points):
        raise ValueError(
            "a size is zero, negative or not finite, and no bubble has such an area; leave that point out."
        )
    groups = list(dict.fromkeys(kinds[name] for name in points)) if kinds else [""]
    largest = max(sizes[name] for name in points) if sizes else 1.0
    areas = {name: LARGEST * sizes[name] / largest if sizes else AREA for name in points}
    ahead = best(points, highest)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for name, (across, up) in points.items():
            group = groups.index(kinds[name]) if kinds else 0
            look = {"marker": MARKERS[group % len(MARKERS)], "s": areas[name], "edgecolor": "white", "linewidth": 0.8}
            axes.scatter(across[0], up[0], color=COLOURS[group % len(COLOURS)], zorder=3, **look)
            look = {"color": "black", "alpha": 0.6, "linewidth": 1, "zorder": 4}  # seen on a large bubble too
            axes.plot(across[1:], up[:1] * 2, **look)
            axes.plot(across[:1] * 2, up[1:], **look)
        corners = [points[name][0][0] for name in ahead], [points[name][1][0] for name in ahead]
        axes.step(*corners, where="post", color="#555555", linewidth=1, zorder=2)
        axes.margins(0.09, 0.12)
        for axis, logarithmic, set_scale in ((axes.xaxis, logx, axes.set_xscale), (axes.yaxis, logy, axes.set_yscale)):
            if logarithmic:
                set_scale("log")
                _plain_log_ticks(axis)
        axes.set(xlabel=x, ylabel=y)
        _legend(figure, groups, bool(kinds), f"area: {size}, at most {largest:,.4g}" if sizes else "")
        _name_points(axes, points, areas, ahead)

    words = f"Scatter plot of {y} against {x}, with intervals both ways and a line along the best: {', '.join(points)}."
    return draw(paint, title, words, size=(8, 4.6))


def _check(points: Mapping[str, tuple[Interval, Interval]], logx: bool, logy: bool) -> None:
    if not 0 < len(points) <= MOST_POINTS:
        raise ValueError(f"there are {len(points)} points; give at least one and at most {MOST_POINTS}.")
    for name, both in points.items():
        for what, (value, low, high), logarithmic in zip("xy", both, (logx, logy)):
            if not -np.inf < low <= value <= high < np.inf:
                raise ValueError(f"{what} of {name} is {value} in {low} to {high}; give (value, low, high), low first.")
            if logarithmic and low <= 0:
                raise ValueError(f"{what} of {name} begins at {low}, and a logarithmic axis has no place for it.")


def _legend(figure: Figure, groups: list[str], kinds: bool, size: str) -> None:
    look = {"linestyle": "none", "markersize": 7}
    marks = [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], label=group, **look)
        for i, group in enumerate(groups)
        if kinds
    ]
    marks.append(Line2D([], [], color="#555555", linewidth=1, label="no other point is better in both"))
    if size:
        marks.append(Line2D([], [], marker="o", color="none", markeredgecolor="#555555", label=size, linestyle="none"))
    figure.legend(handles=marks, loc="outside lower center", ncols=min(3, len(marks)), columnspacing=1.4, fontsize=10)


def _name_points(
    axes: Axes, points: Mapping[str, tuple[Interval, Interval]], areas: Mapping[str, float], ahead: list[str]
) -> None:
    """Write each name where it covers the least of markers, intervals and other names, as near as may be."""
    axes.figure.draw_without_rendering()  # only now is known where a point lies in the figure
    pixels = axes.figure.dpi / 72
    solid, places, looks, taken = [], {}, {}, {}
    for name, ((x, *across), (y, *up)) in points.items():
        (x, y), (left, low), (right, high) = axes.transData.transform([(x, y), *zip(across, up)])
        radius = pixels * np.sqrt(areas[name]) / 2
        solid.append((x - radius, y - radius, x + radius, y + radius))
        solid += [(left, y - 1, right, y + 1), (x - 1, low, x + 1, high)]
        looks[name] = {"fontsize": 9, "fontweight": "bold" if name in ahead else "normal"}
        label = axes.text(0, 0, name, **looks[name])
        size = label.get_window_extent().size
        label.remove()
        places[name] = [
            _beside(np.array([x, y]), size, radius + pixels * far, np.array(side)) for far, side in product(AWAY, SIDES)
        ]
    corners = axes.transData.transform([(points[name][0][0], points[name][1][0]) for name in ahead])
    for (left, before), (right, after) in pairwise(corners):  # the line along the best
        solid += [(left, before - 1, right, before + 1), (right - 1, min(before, after), right + 1, max(before, after))]
    frame = axes.get_window_extent().extents
    for _ in range(2):  # the second time, all others have a place
        for name, boxes in places.items():
            others = np.array(solid + [places[other][at] for other, at in taken.items() if other != name])
            costs = [_covered(box, others) + 9 * _outside(box, frame) for box in boxes]
            nearest = 15 * pixels * np.repeat(range(len(AWAY)), len(SIDES))
            taken[name] = int(np.argmin(costs + nearest))
    for name, at in taken.items():
        here = points[name][0][0], points[name][1][0]
        offset = (places[name][at][:2] - axes.transData.transform(here)) / pixels
        thread = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.6} if at >= len(SIDES) else None
        label = axes.annotate(
            name, here, offset, textcoords="offset points", arrowprops=thread, zorder=5, **looks[name]
        )
        label.set_in_layout(False)
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _beside(point: np.ndarray, size: np.ndarray, far: float, side: np.ndarray) -> np.ndarray:
    """The corners (left, low, right, high) of a name of this size beside a point, in pixels."""
    middle = (
        point + side * (far + size / 2) - (far * 0.3 * side if side.all() else 0)
    )  # a corner is nearer than it is far
    return np.concatenate([middle - size / 2, middle + size / 2])


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """How much of the other boxes (n, 4) lies under a box, in square pixels."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])  # (n, 2)
    return float(shared.clip(0).prod(axis=1).sum())


def _outside(box: np.ndarray, frame: np.ndarray) -> float:
    """How much of a box lies outside the frame, in square pixels."""
    return float((box[2:] - box[:2]).prod()) - _covered(box, frame[None])


show_frontier = _shown(frontier)
