"""Shared by all tests: tiny models, no network, one thread, and the meter that watches every notebook."""

from __future__ import annotations

import gc
import os
import re
import warnings

import pytest

os.environ["MINIGPT_OFFLINE"] = "1"  # kernels inherit it: nothing fetches during the tests
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")  # the two cores that every minute in the course is measured on
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # keeps Jupyter from warning that it will move its folders
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # keeps its debugger from warning in every kernel

import torch
from datasets import Dataset

from minigpt import GPT, CharTokenizer, GPTConfig, TrainConfig, cli, pack

torch.set_num_threads(1)  # tiny models gain nothing by a second, and wait for it where cores are busy
pytest_plugins = ["notebook_meter", "finetune_files"]

MANY = 50_000  # objects of Python; a search among them takes about 10 ms
TINY = {"vocab_size": 31, "n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}
FAMILIES = {
    "gpt2": GPTConfig.gpt2(**TINY),
    "gpt2-grouped": GPTConfig.gpt2(**TINY, n_kv_head=1),
    "llama": GPTConfig.llama(**TINY),
    "llama-grouped": GPTConfig.llama(**TINY, n_kv_head=1),
    "qwen3": GPTConfig.llama(**TINY, n_kv_head=1, qk_norm=True, tie_embedding=False),
    "llama-wide-heads": GPTConfig.llama(**TINY, head_dim=12),
    "qwen3-narrow-heads": GPTConfig.llama(**TINY, n_kv_head=1, head_dim=4, qk_norm=True),
}


def transformers_tokenizer(folder):
    """The tokenizer of a folder as `transformers` opens it."""
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoTokenizer.from_pretrained(folder)


def make_model(config: GPTConfig, seed: int = 0) -> GPT:
    """A model with weights large enough that every part of it matters."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model.eval()


def pytest_runtest_setup():
    """Take what has been imported out of Python's search for rubbish, which every Trainer ends with: it took most of its time."""
    if len(gc.get_objects()) > MANY:
        gc.collect()
        gc.freeze()


@pytest.fixture(params=FAMILIES)
def config(request):
    return FAMILIES[request.param]


@pytest.fixture
def model(config):
    return make_model(config)


@pytest.fixture
def two_threads():
    """For what shares its work out among threads by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_data():
    """A text that a tiny model can learn: (tokenizer, train_data, val_data)."""
    text = "the cat sat on the mat. " * 60
    tokenizer = CharTokenizer.train([text])
    return tokenizer, *pack(Dataset.from_dict({"text": [text]}), tokenizer, context_length=8)


@pytest.fixture
def quick():
    return TrainConfig(max_steps=20, batch_size=4, eval_every=10, learning_rate=1e-2, warmup_steps=2, precision="fp32")


@pytest.fixture
def run(capsys):
    """Run the command in this process: (exit status, stdout, stderr without progress bars)."""

    def run(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            status = cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return status, shown.out, re.sub(r"^.*\d%\|.*$\n?|\r", "", shown.err, flags=re.MULTILINE)

    return run


def assert_is_told(shown, *words):
    """The command refused in one paragraph that has these words."""
    status, out, err = shown
    assert status == 1 and not out
    assert err.startswith("minigpt: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err
