"""data/README.md against the catalog and the texts themselves."""

import re
from pathlib import Path

import pytest

from minigpt.corpus import catalog, is_cached, load_corpus

DATA = Path(__file__).resolve().parents[1] / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")
SHEETS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))
ROWS = {
    name: cells.split(" | ") for name, cells in re.findall(r"^\| \[(\S+)\]\(#\1\) \| (.+) \|$", README, re.MULTILINE)
}
SOURCES = {source.name: source for source in catalog()}

each_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


def test_every_source_has_a_row_and_a_sheet_in_the_order_of_the_catalog():
    assert [*SHEETS] == [*ROWS] == [*SOURCES]


@each_source
def test_a_sheet_says_what_the_catalog_says(source):
    sheet = SHEETS[source.name]
    assert f"**{source.title}**" in sheet
    facts = dict(re.findall(r"^- (\w+): (.+)$", sheet, re.MULTILINE))
    assert facts["Licence"] == source.licence
    assert facts["Cite"] == source.citation
    assert facts["Language"] == source.language
    assert source.limits in sheet
    if source.package:
        assert (
            f"`{source.package}` {source.version}, {source.origin}, sha256 `{source.sha256[:12]}`" == facts["Release"]
        )
    elif source.downloads:
        assert facts["Release"].endswith(f"sha256 `{source.sha256[:12]}`")
    else:
        assert facts["Release"].startswith("no download")


@each_source
def test_a_sheet_counts_what_there_is(source):
    if not is_cached(source.name):
        pytest.skip(f"{source.name} is not in the cache; minigpt data fetch {source.name}")
    *counts, size = ROWS[source.name]
    if source.is_model:
        assert counts == ["none"] * 4
    else:
        dataset = load_corpus(source.name)
        assert f"- Columns: {', '.join(dataset.column_names)}\n" in SHEETS[source.name]
    if counts not in (["none"] * 4, ["varies"] * 4):
        texts = dataset["text"][:]
        words = sum(len(text.split()) for text in texts)
        measured = len(texts), sum(map(len, texts)), words, len(set().union(*texts))
        assert counts == [f"{count:,}" for count in measured]
    assert size == (f"{source.path.stat().st_size / 1e6:.1f}" if source.downloads else "none")
