"""The rows of `finetuning` that write: dialogue and code, before and after, with what was forgotten on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from minigpt.chat_template import CHAT_TOKENS, END, encode_chat
from minigpt.corpus.batching import token_data
from minigpt.evaluate import evaluate_loss
from minigpt.finetune.batches import Rehearsal
from minigpt.finetune.chat import ChatData, add_chat_tokens, add_tokens
from minigpt.finetune.code import complete, end_of_function, parses, same_next_line, started_functions
from minigpt.finetune.lora import add_lora, trainable_parameters
from minigpt.finetune.tasks import code, dialogue
from minigpt.generate import generate
from minigpt.lab.experiments.finetuning_start import Row, fresh, old_losses, train
from minigpt.metrics import distinct_n
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer

CONTEXT = 256  # tokens of a piece of conversation or of code in training
TALKS, QUESTIONS = 1000, 3000  # conversations and questions that are learned from
ASKED = 200  # answers that are sampled, and functions that are completed
LONGEST_OPENING = 400  # characters
EXAMPLES = 12  # answers and completions that are kept to be read


def shuffled(rows: Dataset, talks: int = TALKS, questions: int = QUESTIONS, seed: int = 0) -> list[Any]:
    """So many conversations and questions, in one order."""
    chosen = _of(rows, "chitchat", talks) + _of(rows, "trivia", questions)
    return [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))]


def _of(rows: Dataset, source: str, most: int | None = None) -> list[Any]:
    numbers = np.flatnonzero(np.array(rows["source"][:]) == source)[:most]
    return rows.select(numbers)["messages"][:]


def answer_loss(model: GPT, tokenizer: BPETokenizer, talks: Sequence[Any]) -> Row:
    """Nats per token and per byte of the answers in these conversations, end-of-turn tokens included."""
    data = ChatData(tokenizer, talks, model.config.context_length)
    tokens = sum(target != -100 for _, targets in data.rows for target in targets)
    n_bytes = sum(len(m["content"].strip().encode()) for talk in talks for m in talk if m["role"] == "assistant")
    loss = evaluate_loss(model, data.windows(16))
    return {"loss": round(loss, 4), "tokens": tokens, "bytes": n_bytes}


def plain_loss(model: GPT, tokenizer: BPETokenizer, talks: Sequence[Any]) -> Row:
    """The same for the lines of B in the form that the base model read: `A: ...` and `B: ...`, a line break their end."""
    total, count = 0.0, 0
    for talk in talks:
        ids, targets = [tokenizer.eos_id], []
        for message in talk:
            told = message["role"] == "assistant"
            opening = tokenizer.encode("B:" if told else "A:")
            said = tokenizer.encode(f" {message['content'].strip()}\n")
            ids += opening + said
            targets += [-100] * len(opening) + [token if told else -100 for token in said]
        most = model.config.context_length
        idx, wanted = torch.tensor([ids[:-1][:most]]), torch.tensor([targets[:most]])
        counted = int((wanted != -100).sum())
        if counted:
            with torch.no_grad():
                total += float(model(idx, wanted)[1]) * counted
            count += counted
    return {"loss": round(total / count, 4), "tokens": count}


def sampled_answers(model: GPT, tokenizer: BPETokenizer, openings: Sequence[Any], seed: int = 0) -> Row:
    """Answers to the openings of held-out conversations: how many end by themselves, how varied they are, and some to read."""
    prompts = [encode_chat(tokenizer, opening, add_generation_prompt=True) for opening in openings]
    end, written = tokenizer.special_tokens[END], []
    for first in range(0, len(prompts), 50):
        part = prompts[first : first + 50]
        options = {"max_new_tokens": 100, "temperature": 0.8, "top_p": 0.95, "seed": seed, "stop_tokens": (end,)}
        written += [row[len(p) :] for p, row in zip(part, generate(model, part, **options))]
    texts = [tokenizer.decode([token for token in row if token != end]) for row in written]
    read = [{"user": o[-1]["content"], "assistant": t} for o, t in zip(openings, texts)][:: len(texts) // EXAMPLES]
    said = [text for text in texts if text.strip()]
    return {
        "stopped": sum(end in row for row in written) / len(written),
        "distinct_1": round(distinct_n(said, 1), 4),
        "distinct_2": round(distinct_n(said, 2), 4),
        "examples": read[:EXAMPLES],
    }


def openings_of(rows: Dataset) -> list[Any]:
    """The first words of held-out conversations, where they are short enough, and held-out questions, ASKED in all."""
    openings = [talk[:1] for source in ("chitchat", "trivia") for talk in _of(rows, source)]
    return [opening for opening in openings if len(opening[0]["content"]) <= LONGEST_OPENING][:ASKED]


def converse(settings: Row) -> Row:
    """A partner for conversations: the loss of held-out answers, and 200 samples, before and after."""
    parts, seed = dialogue(), settings["seed"]
    model, tokenizer = fresh(settings["model"], seed, dropout=0.05 if settings["model"] == "base" else 0.0)
    row: Row = dict(settings)
    talks, questions = (_of(parts.test, source) for source in ("chitchat", "trivia"))
    judged = {"chitchat": talks[:25], "trivia": questions[:200]}
    if settings["model"] == "base":
        row["plain"] = {source: plain_loss(model, tokenizer, some) for source, some in judged.items()}
        row["old_before"] = old_losses(model)
        average = add_tokens(model, tokenizer, CHAT_TOKENS)
        row["average_rows"] = {source: answer_loss(*average, some) for source, some in judged.items()}
    model, tokenizer = add_chat_tokens(model, tokenizer)
    row["before"] = {source: answer_loss(model, tokenizer, some) for source, some in judged.items()}
    row["before"] |= sampled_answers(model, tokenizer, openings_of(parts.test))
    data: Any = ChatData(tokenizer, shuffled(parts.train), CONTEXT, seed)
    batch_size, rate = 16, 3e-4
    if settings["model"] == "smollm2":
        add_lora(model, 8)
        batch_size, rate = 8, 5e-4
    if "rehearsal" in settings:
        from minigpt.recipes import find_recipe, mixture

        texts = mixture(find_recipe("base"))[0]["text"][:2000]
        data = Rehearsal(data, token_data(tokenizer, texts, CONTEXT, seed), settings["rehearsal"])
    row["seconds"], _ = train(model, data, settings["updates"], batch_size, rate, seed)
    row["trained"] = trainable_parameters(model)[0]
    row["after"] = {source: answer_loss(model, tokenizer, some) for source, some in judged.items()}
    row["after"] |= sampled_answers(model, tokenizer, openings_of(parts.test))
    if settings["model"] == "base":
        row["old_after"] = old_losses(model)
    return row


def _completions(model: GPT, tokenizer: BPETokenizer, tests: Dataset) -> Row:
    tasks = [t for text, module in zip(tests["text"], tests["module"]) for t in started_functions(text, module)]
    tasks = [tasks[i] for i in np.random.default_rng(0).permutation(len(tasks))[:ASKED]]
    written = complete(model, tokenizer, tasks)
    loss = evaluate_loss(model, token_data(tokenizer, tests["text"][:], CONTEXT, 0).windows(16, 20))
    kept = [{"name": t.name, "given": t.given, "written": w} for t, w in zip(tasks, written)]
    return {
        "loss": round(loss, 4),
        "parses": np.mean([parses(t, w) for t, w in zip(tasks, written)]).item(),
        "next_line": np.mean([same_next_line(t, w) for t, w in zip(tasks, written)]).item(),
        "ended": np.mean([end_of_function(t, w)[1] for t, w in zip(tasks, written)]).item(),
        "functions": len(tasks),
        "examples": kept[:EXAMPLES],
    }


def program(settings: Row) -> Row:
    """A completer of code: the loss of held-out modules, and 200 functions completed, before and after."""
    parts, seed = code(), settings["seed"]
    model, tokenizer = fresh(settings["model"], seed, dropout=0.05)
    row = settings | {"before": _completions(model, tokenizer, parts.test)}
    batch_size, rate = 16, 5e-4
    if settings["method"] == "lora":
        add_lora(model, 8)
        batch_size = 8
    if settings["model"] == "base":
        row["old_before"] = old_losses(model)
    data = token_data(tokenizer, parts.train["text"][:], CONTEXT, seed)
    row["seconds"], _ = train(model, data, settings["updates"], batch_size, rate, seed)
    row["trained"] = trainable_parameters(model)[0]
    if settings["model"] == "base":
        row["old_after"] = old_losses(model)
    return row | {"after": _completions(model, tokenizer, parts.test)}
