import importlib.util

import pytest

from minigpt import GPTConfig
from minigpt.bench import train as bench
from minigpt.cli import main
from minigpt.speedrun import Speedrun

TINY = GPTConfig.gpt2(vocab_size=65, n_layer=1, n_head=2, n_embd=16, context_length=16)
RUN = Speedrun("fast-1.88", "", 0, 1.88, True, 5.0, 1.0, 180, 180, 184_320, 911_040, 1.87)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE", TINY)
    monkeypatch.setattr(bench, "TOKENS", bench.BATCH_SIZE * TINY.context_length)
    runs = {"fast-1.88": RUN, "baseline": RUN.__class__(**{**vars(RUN), "recipe": "baseline", "seconds": 60.0})}
    monkeypatch.setattr(bench, "speedrun", lambda name, target: runs.get(name, RUN))


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_every_comparison_has_a_line_with_its_ratio(tiny):
    lines = [line for line in bench.bench_train(0.05) if isinstance(line, bench.Ratio)]
    said = " ".join(line.what for line in lines)
    assert "plain step" in said and "memory" in said and "seconds to 1.88" in said
    assert ("transformers" in said) == bool(importlib.util.find_spec("accelerate"))
    assert all(line.ours > 0 and line.other > 0 and line.times > 0 for line in lines)
    (seconds,) = [line for line in lines if line.what.startswith("seconds")]
    assert seconds.times == 12.0 and str(seconds) == "seconds to 1.88: 5 against 60 s: 12.00 times"


def test_the_step_without_speedruns_is_what_the_command_prints(tiny, capsys, monkeypatch):
    monkeypatch.setattr(bench, "_transformers", lambda seconds: 1.0)
    assert main(["bench", "train", "--seconds", "0.02", "--skip-speedruns"]) == 0
    out = capsys.readouterr().out
    assert "against the plain step in fp32" in out and "seconds to" not in out


def test_the_clock_takes_the_median_after_the_first_updates(monkeypatch):
    clock = bench.Clock(1.0)
    clock.ends = [0.0, 9.0, 10.0, 11.0, 11.5, 12.0, 12.5]
    assert clock.tokens_per_second() == bench.TOKENS / 0.5
