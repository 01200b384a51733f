"""Shared by all tests: tiny models, no network, and the meter that watches every notebook that nbval runs."""

from __future__ import annotations

import os
import time

import pytest

os.environ["MINIGPT_OFFLINE"] = "1"  # kernels inherit it: nothing fetches during the tests
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

import torch
from datasets import Dataset

from minigpt import GPT, CharTokenizer, GPTConfig, TrainConfig, pack
from minigpt.corpus import is_cached
from minigpt.course import MemoryMeter, over_budget

TINY = {"vocab_size": 31, "n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}
FAMILIES = {
    "gpt2": GPTConfig.gpt2(**TINY),
    "gpt2-grouped": GPTConfig.gpt2(**TINY, n_kv_head=1),
    "llama": GPTConfig.llama(**TINY),
    "llama-grouped": GPTConfig.llama(**TINY, n_kv_head=1),
    "qwen3": GPTConfig.llama(**TINY, n_kv_head=1, qk_norm=True, tie_embedding=False),
}


def make_model(config: GPTConfig, seed: int = 0) -> GPT:
    """A model with weights large enough that every part of it matters."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model.eval()


@pytest.fixture(params=FAMILIES)
def config(request):
    return FAMILIES[request.param]


@pytest.fixture
def model(config):
    return make_model(config)


@pytest.fixture
def small_data():
    """A text that a tiny model can learn: (tokenizer, train_data, val_data)."""
    text = "the cat sat on the mat. " * 60
    tokenizer = CharTokenizer.train([text])
    return tokenizer, *pack(Dataset.from_dict({"text": [text]}), tokenizer, context_length=8)


@pytest.fixture
def quick():
    return TrainConfig(max_steps=20, batch_size=4, eval_every=10, learning_rate=1e-2, warmup_steps=2, precision="fp32")


# Notebooks: an item after the last cell of each checks what the notebook took, while nbval's kernel still stands.


class BudgetItem(pytest.Item):
    """Fails when the notebook whose cells ran before it took more memory or time than a small Binder session gives."""

    def runtest(self) -> None:
        meter = METERS.get(self.parent)
        assert meter is not None, "no cell of this notebook ran"
        problem = over_budget(self.parent.name, meter.peak, time.perf_counter() - meter.started)
        assert not problem, problem

    def reportinfo(self):
        return self.path, None, f"{self.path.name}: memory and time"


METERS: dict[object, MemoryMeter] = {}
TEXTS_ARE_HERE = is_cached("shakespeare")


def pytest_configure(config):
    if not TEXTS_ARE_HERE:  # the course then runs on generated stories, and other numbers come out
        config.option.nbval, config.option.nbval_lax = False, True


def pytest_collection_modifyitems(items):
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    for notebook in dict.fromkeys(cell.parent for cell in cells):
        last = max(i for i, item in enumerate(items) if item.parent is notebook)
        items.insert(last + 1, BudgetItem.from_parent(notebook, name="memory and time"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if type(item).__name__ == "IPyNbCell" and item.parent not in METERS:
        meter = MemoryMeter(item.parent.kernel.km.provisioner.pid)
        meter.started = time.perf_counter()
        METERS[item.parent] = meter.__enter__()
    return (yield)


def pytest_terminal_summary(terminalreporter):
    for notebook, meter in METERS.items():
        terminalreporter.write_line(f"{notebook.name}: {meter.peak / 1e9:.2f} GB at the peak")
    if METERS and not TEXTS_ARE_HERE:
        terminalreporter.write_line(
            "the texts are not in the cache: notebooks were run on stories, outputs not compared"
        )
