import threading

import pytest
from datasets import Dataset

from minigpt import clean
from minigpt.corpus.cleaning import STEPS, Step, clean_stream
from minigpt.corpus.cleaning import run as running

GOOD = [
    f"Here is the story number {word}, and it is not like the one that you have read."
    for word in ("one", "two", "three")
]
DIRTY = [
    "<p>It&amp;s  a caf\u00c3\u00a9 of the town, and I like it.</p>",
    GOOD[0],
    "404",
    "Der Zug ist nicht da, und wir warten auf ihn.",
]


def corpus(*texts):
    return Dataset.from_dict({"text": list(texts), "id": list(range(len(texts)))})


def counting(calls):
    def shout(text):
        """May damage: quiet."""
        calls.append(text)
        return text.upper()

    return Step("shout", "edit", shout)


def test_what_is_left_keeps_its_columns_and_the_report_adds_up():
    kept, report = clean(corpus(*GOOD, *DIRTY))
    assert kept["id"] == [0, 1, 2, 3] and kept.column_names == ["text", "id"]
    assert kept["text"][3] == "It&s a café of the town, and I like it."
    assert report["quality"].reasons == {"too few words": 1} and report["language"].reasons == {"language de": 1}
    assert report.removed_by() == {
        ("exact_duplicates", "duplicate"): 1,
        ("quality", "too few words"): 1,
        ("language", "language de"): 1,
    }
    for before, after in zip(report.steps, report.steps[1:]):
        assert before.documents_out == after.documents_in and before.characters_out == after.characters_in
    assert report.steps[-1].documents_out == 4
    assert report.steps[-1].characters_out == sum(map(len, kept["text"]))


def test_the_report_shows_itself_with_examples():
    _, report = clean(corpus(*GOOD, *DIRTY))
    assert str(report["html"].examples[0]).startswith("document 3: '<p>It&amp;s") and report["html"].changed == 1
    assert str(report["quality"].examples[0]) == "document 5: '404' -> gone (too few words: 1 < 4)"
    assert "1 removed by quality: too few words" in str(report) and "<td" in report._repr_html_()
    assert {"step", "documents_in", "seconds", "examples"} <= report.rows()[0].keys()
    with pytest.raises(KeyError, match="no step 'nosuch' ran; these did: encoding"):
        report["nosuch"]


def test_examples_are_few_and_show_the_place_of_the_change():
    texts = ["x" * 500 + f"  {i}  " + "y" * 500 for i in range(50)]
    _, report = clean(corpus(*texts), ["whitespace"])
    examples = report["whitespace"].examples
    assert len(examples) == 5 and len({e.row for e in examples}) == 5 and max(e.row for e in examples) > 5
    assert all(" " + str(e.row) in e.after and len(e.before) < 200 for e in examples)
    assert examples == clean(corpus(*texts), ["whitespace"])[1]["whitespace"].examples


def test_steps_are_chosen_by_name_or_written_by_the_learner():
    kept, report = clean(
        corpus("a  b", "c"), ["whitespace", Step("no c", "drop", lambda text: "has a c" if "c" in text else None)]
    )
    assert kept["text"][:] == ["a b"] and report["no c"].reasons == {"has a c": 1}
    pairs = Step("pairs", "corpus", lambda texts: [None if i % 2 else "even" for i in range(len(texts))])
    assert clean(corpus("a", "b", "c", "d"), [pairs])[0]["text"][:] == ["b", "d"]


def test_edits_go_round_until_none_finds_anything_to_do():
    # taking out the invisible character lays bare a tag
    kept, report = clean(corpus("<\u200bb>bold</b> words"), ["html", "unicode"])
    assert kept["text"][:] == ["bold words"] and report["edits again"].changed == 1


def test_a_document_that_the_edits_empty_is_gone():
    for dirty in ("<p></p>", "<\u200bp>"):  # at once, and in the second round
        kept, report = clean(corpus(dirty, "words"), ["html", "unicode"])
        assert kept["text"][:] == ["words"] and "nothing is left" in str(report)


def test_a_step_that_never_comes_to_rest_is_named():
    endless = Step("endless", "edit", lambda text: text + "!")
    with pytest.raises(ValueError, match="never comes to rest.*'edits again'"):
        clean(corpus("a"), [endless])


def test_a_second_run_does_nothing_and_a_changed_step_redoes_only_what_follows(tmp_path):
    calls, later = [], []
    steps = ["whitespace", counting(calls), Step("later", "drop", lambda text: later.append(text))]
    first, report = clean(corpus("a  b", "c"), steps, cache=tmp_path)
    assert calls and later and not any(line.cached for line in report.steps)
    calls.clear(), later.clear()
    second, report = clean(corpus("a  b", "c"), steps, cache=tmp_path)
    assert not calls and not later and all(line.cached for line in report.steps)
    assert first["text"][:] == second["text"][:] == ["A B", "C"]
    assert report["whitespace"].examples[0].before == "a  b"

    changed = Step("later", "drop", lambda text: later.append(text), version=2)
    third, report = clean(corpus("a  b", "c"), [*steps[:2], changed], cache=tmp_path)
    assert not calls and later == ["A B", "C"] and report["shout"].cached and not report["later"].cached
    clean(corpus("a  b", "c", "d"), steps, cache=tmp_path)
    assert "d" in calls


def test_a_function_of_a_notebook_is_told_apart_by_its_code():
    def made(source):
        space = {}
        exec(source, space)
        return Step("mine", "edit", space["f"])

    one = made("def f(text): return text.upper()")
    assert one.fingerprint() == made("def f(text): return text.upper()").fingerprint()
    assert one.fingerprint() != made("def f(text): return text.lower()").fingerprint()
    assert len({step.fingerprint() for step in STEPS}) == len(STEPS)


def test_a_damaged_cache_is_made_again(tmp_path):
    expected = clean(corpus("a  b"), ["whitespace"], cache=tmp_path)[0]["text"][:]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert clean(corpus("a  b"), ["whitespace"], cache=tmp_path)[0]["text"][:] == expected
    assert not list(tmp_path.glob("*.part"))


def test_two_workers_do_what_one_does(monkeypatch):
    monkeypatch.setattr(running, "CHUNK_CHARACTERS", 100)
    steps = [*STEPS, Step("mine", "drop", lambda text: "no x" if "xyzzy" in text else None)]
    texts = [*GOOD, *DIRTY] * 3 + ["a xyzzy in the text that is long"]
    alone, one = clean(corpus(*texts), steps)
    together, two = clean(corpus(*texts), steps, workers=2)
    assert alone.to_list() == together.to_list()
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in report.rows()] for report in (one, two)]
    assert untimed[0] == untimed[1]


def test_workers_are_forked_safely_beside_threads():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(clean(corpus(*GOOD), workers=2)[0]) == 3
    finally:
        stop.set()
        thread.join()


def test_a_stream_gives_what_the_data_set_gives(monkeypatch):
    monkeypatch.setattr(running, "CHUNK_CHARACTERS", 100)
    dataset = corpus(*GOOD, *DIRTY)
    kept, expected = clean(dataset)
    for workers in (1, 2):
        rows, report = clean_stream(iter(dataset.to_list()), workers=workers)
        assert list(rows) == kept.to_list()
        assert [(s.step, s.documents_in, s.characters_out) for s in report.steps] == [
            (s.step, s.documents_in, s.characters_out) for s in expected.steps
        ]


def test_a_stream_is_read_as_it_is_consumed(monkeypatch):
    monkeypatch.setattr(running, "CHUNK_CHARACTERS", 100)
    read = []

    def endless():
        while True:
            read.append(1)
            yield {"text": f"This is the document of number {len(read)}, and it has no end to it."}

    rows, _ = clean_stream(endless(), ["unicode", "quality", "exact_duplicates"])
    assert [next(rows)["text"][-9:] for _ in range(3)] == ["end to it."[-9:]] * 3 and len(read) < 20


def test_a_step_that_needs_all_documents_refuses_a_stream():
    step = Step("all", "corpus", lambda texts: [None] * len(texts))
    with pytest.raises(ValueError, match="'all' needs all documents at once.*sketch and judge"):
        clean_stream([{"text": "a"}], [step])


def test_when_nothing_is_left_the_rules_that_took_it_are_named(tmp_path):
    expected = (
        r"all 3 documents were removed: 2 by quality \(too few words\); 1 by language \(language de\)\. "
        "Leave out the step 'quality'"
    )
    for cache in (None, tmp_path, tmp_path):
        with pytest.raises(ValueError, match=expected):
            clean(corpus("404", "403", DIRTY[-1]), cache=cache)
    with pytest.raises(ValueError, match=expected):
        list(clean_stream([{"text": "404"}, {"text": "403"}, {"text": DIRTY[-1]}])[0])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Dataset.from_dict({"text": []}), "no documents to clean: the data set has no rows"),
        (Dataset.from_dict({"words": ["a"]}), "no column 'text'; it has words.*rename_column"),
        (Dataset.from_dict({"text": ["a", None]}), "document 1 has None where text is expected.*dataset.filter"),
        (
            Dataset.from_dict({"text": [b"fine", b"caf\xe9"]}),
            r"document 1 is not UTF-8: byte 3 is 0xe9.*repair_bytes=True",
        ),
    ],
)
def test_documents_that_are_no_text_are_named(dataset, message):
    with pytest.raises(ValueError, match=message):
        clean(dataset)
    with pytest.raises(ValueError):
        list(clean_stream(dataset.to_list())[0])


def test_bytes_are_repaired_when_asked():
    kept, _ = clean(Dataset.from_dict({"text": [b"the caf\xe9 of the town", b"fine text it is"]}), repair_bytes=True)
    assert kept["text"][:] == ["the café of the town", "fine text it is"] and kept.features["text"].dtype == "string"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["whitespaces"], r"no step 'whitespaces'\. Did you mean 'whitespace'\?"),
        ([3], "3 is no step"),
        ([], "no steps to run"),
        (["html", "html"], "'html' is there twice"),
    ],
)
def test_a_wrong_choice_of_steps_is_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        clean(corpus("a"), steps)


def test_a_step_that_is_made_wrongly_is_refused():
    with pytest.raises(ValueError, match="kind='replace'; use one of edit, drop, corpus"):
        Step("x", "replace", str.upper)
    with pytest.raises(ValueError, match="needs a function, and this is str"):
        Step("x", "edit", "upper")
    with pytest.raises(ValueError, match="workers=0 must be a whole number from 1"):
        clean(corpus("a"), ["unicode"], workers=0)


def test_a_step_that_fails_names_itself_and_the_document():
    def broken(text):
        raise ZeroDivisionError("by zero")

    for workers in (1, 2):
        with pytest.raises(
            RuntimeError, match=r"'broken' failed on the document that begins 'some text': ZeroDivisionError"
        ):
            clean(corpus("some text"), [Step("broken", "edit", broken)], workers=workers)
    with pytest.raises(RuntimeError, match="'empty' gave back NoneType"):
        clean(corpus("some text"), [Step("empty", "edit", lambda text: None)])
    with pytest.raises(RuntimeError, match="'few' judged 0 documents and was given 1"):
        clean(corpus("some text"), [Step("few", "corpus", lambda texts: [])])


def test_every_step_says_what_it_does_and_what_it_may_damage():
    for step in STEPS:
        assert "amage" in step.doc, step.name
