"""What is fine-tuned in the tests of the command: tiny base models, and reviews and conversations of a learner's own."""

import json

import pytest
from conftest import FAMILIES, make_model

from minigpt import BPETokenizer, save_checkpoint
from minigpt.chat_template import CHAT_TOKENS
from minigpt.tokenizer import END_OF_TEXT

GOOD = ["a good film", "so good", "good and fine", "fine film"]
BAD = ["a bad film", "so bad", "bad and dull", "dull film"]
TEXT = "The cat sat on the mat. " + ". ".join(GOOD + BAD)
QUICK = ["--batch-size", "4", "--eval-every", "5", "--learning-rate", "0.01"]


def saved(folder, tokenizer, **changes):
    """A folder with a tiny base model for this tokenizer."""
    config = FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size, context_length=48, **changes)
    save_checkpoint(folder, make_model(config), tokenizer)
    return folder


@pytest.fixture
def base(tmp_path):
    return saved(tmp_path / "base", BPETokenizer.train([TEXT], vocab_size=280))


@pytest.fixture
def talker(tmp_path):
    special = (END_OF_TEXT, *CHAT_TOKENS)
    return saved(tmp_path / "talker", BPETokenizer.train([TEXT], vocab_size=280, special_tokens=special))


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f"{text} {n},{label}" for n in range(5) for texts, label in ((GOOD, "up"), (BAD, "down")) for text in texts]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return path


def conversation(n):
    """A question and its answer, unlike those of another n."""
    return [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": f"the cat sat {n}"}]


@pytest.fixture
def talks(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join(json.dumps({"messages": conversation(n)}) for n in range(20)), encoding="utf-8")
    return path


def finetune(folder, task, base, data, *more):
    """The words of the command."""
    return ["finetune", folder, "--task", task, "--base", base, "--data", data, *QUICK, *more]
