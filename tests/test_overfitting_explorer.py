import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_widgets import PNG, Screen, assert_is_seen_without_a_front_end, plain

from minigpt.early_stopping import EarlyStopping
from minigpt.lab import overfitting_explorer, widgets
from minigpt.lab.overfitting_explorer import RECORDED, RULE, STOPS, TITLES, OverfittingExplorer
from minigpt.lab.picture import Picture, draw

#      after 0    10   20    30   40    50    60    70    80   90 updates
RISES = [4.0, 2.0, 1.5, 1.52, 1.4, 1.45, 1.47, 1.46, 1.8, 2.5]
FALLS = [4.0, 3.0, 2.5, 2.2, 2.0, 1.9, 1.8, 1.7, 1.65, 1.6]


def row(n_embd=64, share=0.25, dropout=0.0, val=RISES, **others):
    steps = [10 * i for i in range(len(val))]
    made = {
        "n_embd": n_embd,
        "share": share,
        "dropout": dropout,
        "parameters": 1234 * n_embd,
        "steps": steps,
        "val": val,
    }
    return made | {"train": [4.0 / (1 + i) for i in range(len(val))]} | others


ROWS = [
    row(), row(share=1.0, val=FALLS), row(n_embd=128), row(n_embd=128, dropout=0.2, val=FALLS),
    row(n_embd=128, share=1.0, dropout=0.2, val=FALLS),
]  # fmt: skip
HERE = {"n_embd": 64, "share": 0.25, "dropout": 0.0}


@pytest.fixture
def figures(monkeypatch):
    """What is painted, as matplotlib's figures with their titles; drawing them takes most of the time."""
    kept = []

    def keep(paint, title, words, **options):
        paint(figure := Figure())
        kept.append((figure, title))
        return Picture(PNG + title.encode(), f"{title}. {words}")

    monkeypatch.setattr(overfitting_explorer, "draw", keep)
    return kept


def said(explorer):
    return plain(explorer.told.value)


def move(explorer, **sliders):
    for name, value in sliders.items():
        explorer.sliders[name].value = value


def drawn(figure, label):
    """The points of a curve, a line or a mark of the picture."""
    (line,) = (line for line in figure.axes[0].lines if line.get_label().replace("\n", " ") == label)
    return [*map(float, line.get_xdata())], [*map(float, line.get_ydata())]


def labels(figure):
    return {line.get_label().replace("\n", " ") for line in figure.axes[0].lines if line.get_label()[0] != "_"}


@pytest.mark.parametrize("patience", STOPS["patience"][1:])
@pytest.mark.parametrize("min_delta", STOPS["min_delta"])
def test_a_run_ends_where_the_rule_of_the_trainer_ends_it(figures, patience, min_delta):
    rule, end = EarlyStopping(patience, min_delta), None
    for step, loss in zip(row()["steps"], RISES):
        if rule.update(step, loss):
            end = step
            break
    OverfittingExplorer(ROWS, HERE | {"patience": patience, "min_delta": min_delta})
    figure, title = figures[-1]
    assert drawn(figure, "weights that are kept")[0] == [rule.best_step]
    assert drawn(figure, "lowest validation loss") == ([40], [1.4])
    if end is None:
        assert "early stopping ends the run" not in labels(figure)
    else:
        assert drawn(figure, "early stopping ends the run")[0] == [end, end]
    assert (title == TITLES["early"]) == (end is not None and end < 40)


def test_what_comes_after_the_stop_is_pale_and_joins_what_comes_before(figures):
    OverfittingExplorer(ROWS, HERE | {"patience": 1})
    axes = figures[-1][0].axes[0]
    for label, losses in (("training", row()["train"]), ("validation", RISES)):
        assert drawn(figures[-1][0], label) == ([0, 10, 20, 30], losses[:4])
        (pale,) = (line for line in axes.lines if line.get_alpha() and [*line.get_ydata()] == losses[3:])
        assert [*pale.get_xdata()] == [30, 40, 50, 60, 70, 80, 90] and pale.get_alpha() < 0.5


@pytest.mark.parametrize(
    ("patience", "min_delta", "how", "words"),
    [
        (3, 0.0, "well", "A patience of 3 ends the run after 70 of 90 updates and saves 22% of them; nothing is lost, for"),
        (1, 0.0, "early", "A patience of 1 ends the run after 30 of 90 updates and saves 67% of them; the weights kept are "
            "those after 20 updates, with 1.500: 0.100 nats per token are lost."),
        (8, 0.0, "never", "A patience of 8 is never used up, and all 90 updates are computed; nothing is lost, for the best"),
        (0, 0.0, "whole", "All 90 updates are computed; the weights kept are those after 90 updates, with 2.500: 1.100"),
        (4, 0.1, "blind", "A patience of 4 with a min_delta of 0.1 ends the run after 60 of 90 updates and saves 33%"),
    ],
)  # fmt: skip
def test_the_words_say_the_best_where_the_run_ends_what_is_saved_and_what_is_lost(
    figures, patience, min_delta, how, words
):
    explorer = OverfittingExplorer(ROWS, HERE)
    move(explorer, patience=patience, min_delta=min_delta)
    begin = "Width 64 (79 k parameters), 1/4 of the text, dropout 0. The validation loss is lowest, 1.400, after 40 updates. "
    assert said(explorer).startswith(begin) and words in said(explorer)
    assert figures[-1][1] == TITLES[how] and ("nothing is lost" in said(explorer)) == (how in ("well", "never"))


def test_what_is_hardly_lost_is_not_told_as_nothing(figures):
    explorer = OverfittingExplorer([row(val=[2.0, 1.5, 1.4999, 1.6])], {"patience": 1, "min_delta": 0.001})
    assert said(explorer).endswith("with 1.500: less than 0.001 nats per token are lost.")


def test_each_slider_chooses_another_run_and_the_one_before_stays_to_compare_with(figures):
    explorer = OverfittingExplorer(ROWS, HERE | {"patience": 0})
    assert "validation of the run you came from" not in labels(figures[-1][0])
    move(explorer, share=1.0)
    assert said(explorer).startswith("Width 64 (79 k parameters), all of the text, dropout 0. The validation loss")
    assert drawn(figures[-1][0], "validation")[1] == FALLS
    assert drawn(figures[-1][0], "validation of the run you came from")[1] == RISES
    move(explorer, patience=5)
    assert drawn(figures[-1][0], "validation of the run you came from")[1] == RISES


def test_a_combination_that_was_not_recorded_says_so_and_which_sliders_lead_to_one(figures):
    explorer = OverfittingExplorer(ROWS, HERE)
    move(explorer, dropout=0.2)
    assert said(explorer) == (
        "Width 64 (79 k parameters), 1/4 of the text, dropout 0.2. No such run was recorded. "
        "Move Parameters to 158 k, or Dropout to 0."
    )
    assert figures[-1][1] == TITLES["missing"] and labels(figures[-1][0]) == {"validation of the run you came from"}
    move(explorer, n_embd=128)
    assert said(explorer).startswith(
        "Width 128 (158 k parameters), 1/4 of the text, dropout 0.2. The validation loss is"
    )
    assert drawn(figures[-1][0], "validation of the run you came from")[1] == RISES

    lonely = [
        row(n_embd=n_embd, share=share, dropout=dropout)
        for n_embd, share, dropout in ((1, 0.25, 0), (2, 0.5, 0.1), (3, 1, 0.2))
    ]
    assert said(OverfittingExplorer(lonely, {"n_embd": 1, "share": 0.5, "dropout": 0.2})).endswith(
        "Move two of the sliders."
    )


def test_the_axes_stand_still_hold_every_mark_and_leave_the_first_fall_above(figures):
    explorer = OverfittingExplorer(ROWS)
    for name in (*RECORDED, *RULE):
        for _, value in explorer.sliders[name].options:
            move(explorer, **{name: value})
    axes = [figure.axes[0] for figure, _ in figures]
    assert len({(one.get_xlim(), one.get_ylim(), one.get_position().bounds) for one in axes}) == 1
    (left, right), (low, high) = axes[0].get_xlim(), axes[0].get_ylim()
    assert left < 0 < 90 < right < 100 and low < 0.4 and 2.5 < high < 4
    for one in axes:
        marks = [line for line in one.lines if line.get_marker() in ("*",)]
        assert all(low < line.get_ydata()[0] < high for line in marks)


def test_it_starts_at_the_run_that_overfits_most_or_where_one_says(figures):
    first = OverfittingExplorer([row(val=FALLS), row(n_embd=32, dropout=0.1)])
    assert {name: slider.value for name, slider in first.sliders.items()} == {
        "n_embd": 32, "share": 0.25, "dropout": 0.1, "patience": 3, "min_delta": 0.0,
    }  # fmt: skip
    own = OverfittingExplorer(ROWS, HERE | {"patience": 12, "min_delta": 0.5})
    assert (own.sliders["patience"].value, own.sliders["min_delta"].value) == (12, 0.5)
    assert own.sliders["patience"].options[0] == ("off", 0)


def test_what_cannot_be_moved_has_no_slider_and_shares_are_written_as_one_says_them(figures):
    explorer = OverfittingExplorer([row(share=share, parameters=3_210_000) for share in (0.125, 1 / 3, 0.3, 1)])
    assert [[one.description for one in row.children] for row in explorer.box.children[:2]] == [
        ["Text"], ["Patience", "min_delta"]
    ]  # fmt: skip
    assert [label for label, _ in explorer.sliders["share"].options] == ["1/8", "30%", "1/3", "all"]
    assert said(explorer).startswith("Width 64 (3.2 M parameters), 1/8 of the text")


def test_gaps_in_the_losses_and_runs_of_other_lengths_can_be_drawn():
    nan, inf = float("nan"), float("inf")
    train = [None, *row()["train"][1:]]
    odd = [row(val=[2.0], share=0.5), row(train=train, val=[4.0, nan, 2.0, inf, 1.5, nan, nan, inf, nan, 2.0])]
    assert OverfittingExplorer([row(val=[2.0], train=[2.0])]).image.value
    explorer = OverfittingExplorer([*odd, row(n_embd=1, val=[2.0, 2.0])], HERE)
    assert "A patience of 3 ends the run after 70 of 90 updates" in said(explorer)
    for name in (*RECORDED, *RULE):
        for _, value in explorer.sliders[name].options:
            move(explorer, **{name: value})
            assert bytes(explorer.image.value).startswith(PNG) and said(explorer)


def test_every_title_fits_one_line_so_that_the_picture_keeps_its_height():
    pictures = [draw(lambda figure: None, title, "", size=(8, 3.4)).png for title in ("short", *TITLES.values())]
    assert len({Image.open(io.BytesIO(png)).size for png in pictures}) == 1


@pytest.mark.parametrize(
    ("rows", "start", "words"),
    [
        ([], None, "there is no run to look at; pass a list"),
        ([row(), {"n_embd": 1, "share": 1.0, "dropout": 0.0}], None, "row 1 has no parameters, steps, train, val; each row"),
        ([row(train=[1.0])], None, "row 0 has 10 steps, 1 training and 10 validation losses; give one of each"),
        ([row(val=[])], None, "row 0 has 0 steps, 0 training and 0 validation losses; give"),
        ([row(val=[2.0, 1.0], steps=[10, 10])], None, "the steps of row 0 do not rise; give the evaluations in the order"),
        ([row(val=[2.0, float("nan")])], None, "row 0 goes from 2.0 to nan; leave out a run that diverged"),
        ([row(), row()], None, "row 1 is a second run with Width 64 .79 k parameters., 1/4 of the text, dropout 0; keep one"),
        ([row()], {"width": 64}, "start has width; it may have n_embd, share, dropout, patience, min_delta"),
        ([row(), row(n_embd=2)], {"n_embd": 3}, "start has n_embd=3; choose one of 2, 64"),
        ([row()], {"patience": 1.5}, "start has patience=1.5; choose one of 0, 1"),
        ([row()], {"min_delta": -1.0}, "start has min_delta=-1.0; choose"),
    ],
)  # fmt: skip
def test_what_is_no_run_and_no_start_is_an_error_that_says_what_to_do(rows, start, words):
    with pytest.raises(ValueError, match=words):
        overfitting_explorer.overfitting_explorer(rows, start)


def test_an_explorer_is_seen_without_a_front_end_and_moving_it_changes_its_picture(monkeypatch):
    monkeypatch.setattr(widgets, "display", screen := Screen())
    assert overfitting_explorer.overfitting_explorer(ROWS, HERE) is None
    words = (
        rf"^{TITLES['well']}\. Overfitting explorer\. Line chart .* Width 64 \(79 k .*\), 1/4 of the text, dropout 0\.$"
    )
    assert_is_seen_without_a_front_end(screen.shown[0], words)
    assert not re.search(r"1\.4|70", screen.shown[0][0]["text/plain"])
    explorer = OverfittingExplorer(ROWS, HERE)
    pictures = {bytes(explorer.image.value)}
    for name, value in (("patience", 1), ("share", 1.0), ("dropout", 0.2), ("n_embd", 128), ("min_delta", 0.1)):
        move(explorer, **{name: value})
        pictures.add(bytes(explorer.image.value))
    assert len(pictures) == 6
