import io

import numpy as np
import pytest
from PIL import Image

from minigpt.lab.forest import forest, show_forest

ROWS = {"with": [(0.8, 0.78, 0.82), (0.79, 0.77, 0.81)], "without": [(0.7, 0.6, 0.8)]}


def _pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))


def test_it_says_in_words_what_it_shows_and_names_no_number():
    words = forest(ROWS, "With is better than without", x="accuracy").words
    assert words == "With is better than without. Forest plot of accuracy, with an interval for each of: with, without."


def test_a_longer_interval_and_a_level_are_seen():
    plain = _pixels(forest(ROWS, "t", x="accuracy"))
    wider = _pixels(forest(ROWS | {"without": [(0.7, 0.65, 0.75)]}, "t", x="accuracy"))
    level = _pixels(forest(ROWS, "t", x="accuracy", level=(0.5, "majority")))
    assert plain.shape == wider.shape and (plain != wider).any() and (plain != level).any()
    assert len(_pixels(forest(ROWS | {"third": [(0.5, 0.4, 0.6)]}, "t", x="accuracy"))) > len(plain)


@pytest.mark.parametrize("rows", [{}, {"empty": []}])
def test_nothing_to_show_is_said(rows):
    with pytest.raises(ValueError, match="at least one"):
        show_forest(rows, "t", x="accuracy")
