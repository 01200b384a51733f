import pytest

from minigpt import load_corpus
from minigpt.bench import clean as bench
from minigpt.cli import main

TEXTS = "\n".join(
    f'{{"text": "Here is story {i}, which is not like any of the others that you have read  so far."}}'
    for i in range(20)
)


def test_every_step_is_timed_and_then_all_of_them(monkeypatch):
    monkeypatch.setattr(bench, "is_cached", lambda name: name == "stories")
    monkeypatch.setattr(bench, "_installed", lambda name: False)
    lines = list(bench.bench_clean(0.02, workers=1))
    assert [line.name for line in lines] == [step.name for step in bench.STEPS] + [
        "pipeline, workers=1",
        "MinHash, workers=1",
    ]
    assert all(line.mb_per_s > 0 and line.peer_mb_per_s is None for line in lines)


def test_a_peer_is_shown_beside_as_a_ratio():
    line = str(bench.Speed("quality", 6.0, "a peer", 0.5))
    assert line.startswith("quality") and line.endswith("0.50 a peer: 12 times as fast")


def test_the_documents_are_of_every_source_that_is_here_and_as_many_as_asked(monkeypatch):
    monkeypatch.setattr(bench, "is_cached", lambda name: name == "stories")
    texts = bench.documents(0.05)["text"][:]
    assert 50_000 <= sum(len(text.encode()) for text in texts) < 52_000
    assert texts == bench.documents(0.05)["text"][:]


def test_memory_is_watched_while_a_stream_is_cleaned():
    memory = bench.bench_memory(0.0002, workers=1)
    assert memory.documents > 30 and memory.peak_gb >= memory.before_gb > 0.05
    assert "GB of memory at most" in str(memory)


def test_measuring_memory_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setattr(bench, "_installed", lambda name: False)
    with pytest.raises(ValueError, match=r"needs psutil.*\[course\]"):
        bench.bench_memory(0.001)


def test_the_command_cleans_a_file_and_writes_what_load_corpus_reads(tmp_path, capsys):
    (tmp_path / "mine.jsonl").write_text(TEXTS + '\n{"text": "404"}', encoding="utf-8")
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["clean", str(tmp_path / "mine.jsonl"), str(out), "--steps", "whitespace,quality"]) == 0
    assert "1 removed by quality: too few words" in capsys.readouterr().out
    texts = load_corpus(out)["text"]
    assert len(texts) == 20 and texts[0].endswith("that you have read so far.")
    assert main(["clean", str(tmp_path / "mine.jsonl"), str(out), "--steps", "whitespaces"]) == 1
    assert "Did you mean 'whitespace'?" in capsys.readouterr().err


def test_the_command_shows_memory(capsys):
    assert main(["bench", "clean", "--memory", "0.0003", "--workers", "1"]) == 0
    assert "documents" in capsys.readouterr().out
