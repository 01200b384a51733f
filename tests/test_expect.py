import math
import re
import sys
from pathlib import Path

import pytest
import torch

from minigpt.lab import expect
from minigpt.lab.expect import compare, read_bands

PROJECT = Path(__file__).parents[1]
BANDS = """
["04/val_loss"]
low = 1.8
high = 1.9
unit = "nats per token"
what = "validation loss after 300 updates"
measured = "5 seeds on 3 machines"
causes = ["Another text.", "Fewer updates than <300>."]

["04/plain"]
low = 0
high = 1
what = "a share"
measured = "2 seeds"
"""


@pytest.fixture
def bands(tmp_path):
    path = tmp_path / "bands.toml"
    path.write_text(BANDS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (1.85, "in"),
        (1.8, "in"),
        (1.9, "in"),
        (1.79999, "below"),
        (2, "above"),
        (math.inf, "above"),
        (-math.inf, "below"),
        (math.nan, "outside"),
        (None, "outside"),
        (torch.tensor(1.85, requires_grad=True), "in"),
        (torch.tensor([2.5]), "above"),
    ],
)
def test_a_value_lies_in_below_above_or_outside_its_band(bands, value, place):
    found = compare("04/val_loss", value, bands)
    assert found.place == place and found.ok == (place == "in")


def test_a_value_in_its_band_is_one_short_line(bands):
    line = "04/val_loss = 1.85 nats per token lies in the band 1.8 to 1.9."
    assert repr(compare("04/val_loss", 1.85, bands)) == line
    assert repr(compare("04/plain", 0.5, bands)) == "04/plain = 0.5 lies in the band 0 to 1."


def test_a_value_outside_tells_how_the_band_was_measured_and_the_usual_causes(bands):
    assert repr(compare("04/val_loss", 2.345678, bands)) == (
        "04/val_loss = 2.346 nats per token lies above the band 1.8 to 1.9 (5 seeds on 3 machines). "
        "Usual causes: Another text. Fewer updates than <300>."
    )
    assert repr(compare("04/plain", math.nan, bands)).endswith("Usual causes: another seed, text or setting.")


def test_html_says_the_same_escaped_and_in_words_as_well_as_in_colour(bands):
    good, bad = (compare("04/val_loss", value, bands)._repr_html_() for value in (1.85, 2))
    assert "as expected" in good and "unexpected" in bad and "validation loss after 300 updates" in good
    assert "&lt;300&gt;" in bad and "<300>" not in bad


def test_a_name_without_a_band_suggests_the_nearest(bands):
    with pytest.raises(ValueError, match=r"there is no band '04/val_los'\. Did you mean '04/val_loss'\?"):
        compare("04/val_los", 1, bands)
    with pytest.raises(ValueError, match="there is no band"):
        expect("no such band", 1)


@pytest.mark.parametrize("value", ["low", [1.8, 1.9], torch.ones(2), {}])
def test_what_is_not_one_number_is_refused(bands, value):
    with pytest.raises(ValueError, match=rf"04/val_loss is one number, and this is a {type(value).__name__}"):
        compare("04/val_loss", value, bands)


def test_expect_shows_its_line_and_gives_nothing_back(bands, monkeypatch, capsys):
    own = read_bands(bands)
    monkeypatch.setattr(sys.modules["minigpt.lab.expect"], "_own_bands", lambda: own)
    assert expect("04/val_loss", 3) is None
    assert capsys.readouterr().out.startswith("04/val_loss = 3 nats per token lies above the band")


def test_nbval_compares_the_verdict_and_not_the_digits(bands):
    sanitizers = (PROJECT / "tests/notebooks/sanitize.cfg").read_text(encoding="utf-8")
    pairs = re.findall(r"^regex: (.*)\nreplace: (.*)$", sanitizers, re.MULTILINE)

    def compared(value, shown):
        text = shown(compare("04/val_loss", value, bands))
        for regex, replacement in pairs:
            text = re.sub(regex, replacement, text)
        return text

    for shown in (repr, lambda found: found._repr_html_()):
        assert compared(1.81, shown) == compared(1.894, shown) != compared(1.79, shown)
        assert compared(math.nan, shown) != compared(12345678, shown)


def test_every_band_of_the_package_is_sane_and_says_how_it_was_measured():
    for name, band in read_bands().items():
        assert re.fullmatch(r"\d\d/[a-z0-9_]+", name), name
        assert -math.inf < band.low < band.high < math.inf, name
        assert len(band.what) > 10 and not band.what.endswith("."), name
        assert re.search(r"\d", band.measured) and len(band.measured) > 10 and not band.measured.endswith("."), name
        assert all(cause.endswith(".") for cause in band.causes), name
