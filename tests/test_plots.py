import base64
import functools
import io
import threading

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from minigpt import History
from minigpt.lab import picture, plots

NAN, INF = float("nan"), float("inf")
ROWS = [
    {"step": i + 1, "train_loss": 5 - i / 10} | ({"val_loss": 5.2 - i / 10} if i % 10 == 9 else {}) for i in range(30)
]
AXES = {"x": "position", "y": "loss (nats per token)"}


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


KINDS = {
    "bars": lambda values: plots.bars(values(8), "Bars", highlight=3, **AXES),
    "lines": lambda values: plots.lines({"one": values(500), "two": (range(9), values(9))}, "Lines", **AXES),
    "heatmap": lambda values: plots.heatmap(values(40, 40), "A heat map", **AXES),
    "heatmap with numbers": lambda values: plots.heatmap(values(6, 6), "A table", **AXES),
    "grid": lambda values: plots.grid(values(6, 16, 16), "Heads", labels=list("abcdef"), **AXES),
    "loss": lambda values: plots.loss(History(ROWS), "A training", level=(float(values(1)), "a guess")),
}


@functools.cache
def drawn(kind):
    return KINDS[kind](random)


def image(shown):
    return Image.open(io.BytesIO(shown.png))


def pixels(shown):
    """(height, width, 3) from 0 to 255."""
    return np.asarray(image(shown).convert("RGB")).astype(int)


@pytest.fixture
def figure_of(monkeypatch):
    """Call a kind of plot and get the figure that it painted instead of a picture."""

    def painted(paint, title, words, size=(7, 3.4)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        return figure

    monkeypatch.setattr(plots, "draw", painted)
    return lambda kind, *arguments, **options: kind(*arguments, "title", **(AXES | options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_a_small_png_with_words_beside_it(kind):
    shown = drawn(kind)
    data, metadata = shown._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == shown.png and image(shown).format == "PNG"
    assert data["text/plain"] == metadata["image/png"]["alt"] == repr(shown)
    assert len(shown.png) < 25_000 and len(image(shown).getcolors()) <= picture.SHADES and not image(shown).info


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_are_the_same_whatever_was_measured(kind):
    first, other = drawn(kind), KINDS[kind](lambda *shape: 1 + 2 * random(*shape))
    assert first.words == other.words and first.png != other.png


def test_the_words_name_the_finding_the_axes_and_the_curves():
    shown = plots.lines({"ours": [2, 1], "theirs": [3, 2]}, "Ours is lower.", **AXES)
    assert shown.words == "Ours is lower. Line chart of loss (nats per token) against position: ours, theirs."
    assert plots.bars([1], "Which is best?", **AXES).words.startswith("Which is best? Bar chart of loss")
    assert plots.bars([1], "", **AXES).words.startswith("Bar chart of loss")


def test_reducing_the_colours_of_a_png_moves_no_colour_far(monkeypatch):
    reduced = pixels(drawn("heatmap"))
    monkeypatch.setattr(Image.Image, "quantize", lambda image, *_, **__: image)
    whole = pixels(KINDS["heatmap"](random))
    assert np.abs(reduced - whole).max() < 12 and np.abs(reduced - whole).mean() < 1.5


@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize("title", ["Where every token of the sentence looks in each of the six layers " * 2, "W" * 70])
def test_a_long_title_is_broken_into_lines_and_never_cut(width, title):
    short, long = (picture.draw(lambda figure: None, text, "", size=(width, 1)) for text in ("Short", title))
    shown = pixels(long)
    assert shown.shape[0] > pixels(short).shape[0] and shown.shape[1] == 90 * width
    assert (shown[:, -4:] > 240).all()


def test_every_kind_of_list_is_drawn(figure_of):
    weight = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for values in ([1, 2, 3], np.arange(1, 4), weight, weight.bfloat16(), [w * 1 for w in weight], (1, 2, 3)):
        assert [bar.get_height() for bar in figure_of(plots.bars, values).axes[0].patches] == [1, 2, 3]
        assert figure_of(plots.lines, values).axes[0].lines[0].get_ydata().tolist() == [1, 2, 3]
    pair = figure_of(plots.lines, {"pair": (torch.tensor([4, 5]), [6, 7])}).axes[0].lines[0]
    assert pair.get_xdata().tolist() == [4, 5] and pair.get_ydata().tolist() == [6, 7]


@pytest.mark.parametrize("values", [[[NAN, NAN], [NAN, NAN]], [[-INF, 1.0], [2.0, INF]], [[1.0, 1.0], [1.0, 1.0]]])
def test_what_is_no_number_breaks_no_picture(values):
    assert plots.heatmap(values, "A table", **AXES).png and plots.grid([values], "One", labels=["a"], **AXES).png
    assert plots.bars(values[0], "Bars", **AXES).png
    for log in (False, True):
        assert plots.lines(values[0], "Lines", logx=log, logy=log, **AXES).png


def test_a_cell_that_is_no_number_is_hatched():
    def grey(table):
        shown = pixels(plots.heatmap(table, "", values=False, **AXES))
        return (np.abs(shown - 0xEE) < 4).all(-1).mean()

    assert grey([[1.0, NAN], [2.0, 3.0]]) > 0.05 > 0.01 > grey([[1.0, 1.5], [2.0, 3.0]])


def test_a_curve_has_a_gap_where_there_is_no_number(figure_of):
    for missing in (NAN, INF):
        assert np.isnan(figure_of(plots.lines, [1, missing, 3]).axes[0].lines[0].get_ydata()[1])


def test_around_zero_below_is_blue_above_is_red_and_zero_is_white():
    shown = pixels(plots.heatmap([[-1.0, 0.0, 2.0]], "", values=False, **AXES))
    height, width, _ = shown.shape
    left, middle, right = (shown[height // 2, int(width * share)] for share in (0.2, 0.45, 0.7))
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50 and middle.min() > 230
    one_sign = pixels(plots.heatmap([[0.1, 1.0]], "", values=False, **AXES))
    assert ((one_sign[..., 0] > 240) & (one_sign[..., 2] < 90)).any()  # the yellow end of cividis


def test_the_heads_of_a_grid_share_one_scale(figure_of):
    figure = figure_of(plots.grid, [[[0.0, 0.1]], [[0.0, 1.0]]], labels=["dim", "bright"])
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    assert limits == {(0.0, 1.0)}


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_the_number_in_a_cell_can_be_read(figure_of, low):
    """Contrast as WCAG 2.2 measures it, which asks for 3 : 1 at the least."""
    table = np.linspace(low, 1, 60).reshape(6, 10)
    (axes, _) = figure_of(plots.heatmap, table).axes
    colours = axes.images[0].to_rgba(table)
    for text in axes.texts:
        column, row = text.get_position()
        pair = sorted(luminance(colour) for colour in (text.get_color(), colours[row, column][:3]))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 3.9


def test_numbers_are_written_where_they_fit(figure_of):
    def texts(*arguments, **options):
        return [text.get_text() for text in figure_of(plots.heatmap, *arguments, **options).axes[0].texts]

    assert texts([[1.0, -0.001], [-INF, NAN]]) == ["1.00", "0.00", "-inf", "nan"]
    assert texts([[1234.5, 1.0]]) == ["1234", "1"]
    assert not texts(random(40, 40)) and not texts(random(2, 50)) and not texts(random(50, 2))
    assert not texts([[1.0]], values=False)


def test_names_of_bars_are_upright_where_they_fit_else_turned_and_a_very_long_one_is_cut(figure_of):
    def names(labels):
        return figure_of(plots.bars, [1.0] * len(labels), labels=labels).axes[0].get_xticklabels()

    assert {label.get_rotation() for label in names(["the", "cat"])} == {0}
    assert {label.get_rotation() for label in names(["token embedding", "attention query"] * 5)} == {45}
    assert {label.get_rotation() for label in names(["token", "query"] * 30)} == {90}
    assert [len(label.get_text()) for label in names(["x" * 90, "y"])] == [24, 1]


def test_a_dollar_sign_is_a_dollar_sign_and_a_character_without_a_font_is_a_box():
    for labels in (["$x$", r"$\frac$"], ["眠", "\x00"]):
        assert plots.bars([1, 2], "It costs $5 or $6", labels=labels, **AXES).png


def test_a_font_with_chinese_is_used_where_one_is_installed(monkeypatch):
    families = []

    def paint(figure):
        families.append(matplotlib.rcParams["font.family"])

    for installed in (["DejaVu Sans"], ["DejaVu Sans", "SimHei", "PingFang HK"]):
        monkeypatch.setattr(picture.font_manager, "get_font_names", lambda installed=installed: installed)
        picture.draw(paint, "", "")
    assert families == [["DejaVu Sans"], ["DejaVu Sans", "PingFang HK", "SimHei"]]


def test_logarithmic_axes_carry_plain_numbers(figure_of):
    def labels(axis):
        return [label.get_text() for label in axis.get_ticklabels()]

    (axes,) = figure_of(plots.lines, {"a": ([4, 64, 1024], [2, 8, 32])}, logx=True, logy=True).axes
    assert labels(axes.xaxis) == ["4", "64", "1,024"] and {"5", "10", "20"} <= set(labels(axes.yaxis))
    (axes,) = figure_of(plots.lines, [1e-4, 1e4], logy=True).axes
    assert {"0.01", "1", "100"} <= set(labels(axes.yaxis))
    (axes,) = figure_of(plots.lines, [1.1, 1.4], logy=True).axes
    assert len(labels(axes.yaxis)) > 3
    (axes,) = figure_of(plots.lines, [3, 2, 1]).axes
    assert all("." not in label for label in labels(axes.xaxis))


def test_many_curves_are_named_beside_the_plot_and_few_inside(figure_of):
    for curves, inside in ((3, True), (4, False)):
        figure = figure_of(plots.lines, {f"run {i}": [i, i + 1] for i in range(curves)})
        assert bool(figure.legends) != inside and bool(figure.axes[0].get_legend()) == inside
    colours = [line.get_color() for line in figure_of(plots.lines, {str(i): [i] for i in range(7)}).axes[0].lines]
    assert len(set(colours)) == 7


def test_one_bar_alone_stays_a_bar_and_bars_below_zero_hang_from_a_line(figure_of):
    (axes,) = figure_of(plots.bars, [3.0]).axes
    low, high = axes.get_xlim()
    assert axes.patches[0].get_width() < (high - low) / 4 and axes.get_xticks().tolist() == [0]
    assert not axes.lines and figure_of(plots.bars, [-1.0, 1.0]).axes[0].lines


def test_a_loss_without_an_update_or_without_validation_says_so(figure_of):
    def loss(history, title, x=None, y=None):
        return plots.loss(history, title)

    (axes,) = figure_of(loss, History()).axes
    assert [text.get_text() for text in axes.texts] == ["no update yet"] and axes.get_legend() is None
    (axes,) = figure_of(loss, History(ROWS[:5])).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training, each batch"]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: plots.bars([1, 2], "t", labels=["a"], **AXES), "1 labels for 2 bars; give each one a label"),
        (lambda: plots.bars(3, "t", **AXES), r"bars take one row of numbers, and these values have shape \(\)"),
        (lambda: plots.lines({"a": random(2, 3)}, "t", **AXES), r"curves take one row .* shape \(2, 3\)"),
        (lambda: plots.heatmap([1, 2], "t", **AXES), r"takes rows and columns, and these values have shape \(2,\)"),
        (lambda: plots.heatmap(random(2, 3), "t", xticks=["a"], **AXES), "1 labels for 3 columns"),
        (lambda: plots.heatmap(random(2, 3), "t", yticks=["a"], **AXES), "1 labels for 2 rows"),
        (lambda: plots.grid([], "t", labels=[], **AXES), "at least one matrix"),
        (lambda: plots.grid(random(2, 3, 3), "t", labels=["a"], **AXES), "1 labels for 2 pictures"),
    ],
)
def test_values_that_cannot_be_drawn_are_refused_with_their_shape(action, words):
    with pytest.raises(ValueError, match=words):
        action()


# Machado, Oliveira & Fernandes (2009), severity 1.0: how the three kinds of colour blindness see linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_colours_of_curves_are_told_apart_with_any_colour_vision(blindness):
    """In CIELAB, where a distance of about 2 can just be noticed."""
    rgb = np.array([to_rgb(colour) for colour in plots.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[blindness]).T, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = seen @ np.array(to_xyz).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert distance.min() > 10


def test_drawing_leaves_the_style_of_others_alone_even_from_several_threads():
    before, styles = dict(matplotlib.rcParams), []

    def paint(figure):
        figure.subplots()
        styles.append(matplotlib.rcParams["axes.grid"])

    threads = [threading.Thread(target=picture.draw, args=(paint, "title", "words")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert styles == [True] * 4 and dict(matplotlib.rcParams) == before


def test_showing_gives_nothing_back(capsys):
    assert plots.show_bars([1, 2], "Two bars", **AXES) is None
    assert capsys.readouterr().out.strip() == "Two bars. Bar chart of loss (nats per token) by position, 2 bars."


def test_tokens_are_boxes_in_html_and_have_bars_between_them_as_text():
    boxes = plots.tokens(["<b>", "·cat", "↵"], "Three & more")
    assert repr(boxes) == "Three & more\n<b>|·cat|↵"
    assert boxes._repr_html_().count("<span") == 3 and "&lt;b&gt;" in boxes._repr_html_()
    assert "Three &amp; more" in boxes._repr_html_() and repr(plots.tokens(["a", "b"])) == "a|b"
