"""Running the steps that look at one document at a time, over chunks of documents, in this process or in workers.

A pass over a chunk gives back only what it changed. This module knows nothing of data sets, caches or reports.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import dill

from minigpt.corpus.cleaning.step import ROUNDS, Step

NOTHING = "nothing is left"  # why a document goes that the edits emptied
CHUNK_CHARACTERS = 500_000  # of text in one task: enough that handing it over costs nothing beside the work


@dataclass
class Changes:
    """What one pass did: the rows it changed, their new text or None, and why a row without text is gone."""

    rows: list[int] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, row: int, text: str | None, reason: str | None = None) -> None:
        """Note the new text of a row, or None and the reason why the document is gone."""
        self.rows.append(row)
        self.texts.append(text)
        self.reasons.append(reason)

    def extend(self, other: Changes, offset: int = 0) -> None:
        """Take over the changes of a later chunk, whose first row is `offset` here."""
        self.rows += [row + offset for row in other.rows]
        self.texts += other.texts
        self.reasons += other.reasons
        self.seconds += other.seconds


@dataclass(frozen=True)
class Settle:
    """The edits once more, on documents that they changed, until none of them finds anything to do.

    What one edit takes out may lay bare something for an edit before it. Afterwards cleaning the text again changes
    nothing. A document whose edits have not come to rest after a few rounds is dropped.
    """

    edits: tuple[Step, ...]

    def __call__(self, text: str) -> tuple[str | None, str | None]:
        """The settled text and None, or None and the reason why there is none."""
        last = ""
        for _ in range(ROUNDS):
            before = text
            for step in self.edits:
                after = _edited(step, text)
                if after != text:
                    last, text = step.name, after
            if text == before:
                return (text, None) if text else (None, NOTHING)
        return None, f"never comes to rest: {last} changes what the edits made"


Pass = Step | Settle


def passes(steps: Sequence[Step]) -> list[Pass]:
    """The steps, with a `Settle` after each row of edits."""
    plan: list[Pass] = []
    for is_edit, group in itertools.groupby(steps, key=lambda step: step.kind == "edit"):
        members = tuple(group)
        plan += [*members, Settle(members)] if is_edit else members
    return plan


def run_chunk(plan: Sequence[Pass], texts: Sequence[str | None], touched: Sequence[bool]) -> list[Changes]:
    """Run passes that look at one document at a time; the changes of each, by the row's place in the chunk.

    Args:
        texts: None where a document is gone already.
        touched: whether an edit has changed the document before, so that it has to settle.
    """
    alive = {row: text for row, text in enumerate(texts) if text is not None}
    unsettled = {row for row in alive if touched[row]}
    results = []
    for each in plan:
        changes, started = Changes(), time.perf_counter()
        if isinstance(each, Settle):
            for row in sorted(unsettled & alive.keys()):
                text, reason = each(alive[row])
                if text != alive[row]:
                    changes.add(row, text, reason)
            unsettled.clear()
        elif each.kind == "edit":
            for row, text in alive.items():
                after = _edited(each, text)
                if after is not text and after != text:
                    changes.add(row, after or None, None if after else NOTHING)
                    unsettled.add(row)
        else:
            for row, text in alive.items():
                reason = _called(each, text)
                if reason is not None:
                    changes.add(row, None, str(reason))
        for row, text in zip(changes.rows, changes.texts, strict=True):
            if text is None:
                del alive[row]
            else:
                alive[row] = text
        changes.seconds = time.perf_counter() - started
        results.append(changes)
    return results


def sketch_chunk(step: Step, texts: Sequence[str | None]) -> tuple[Sequence[Any], float]:
    """What a `CorpusRule` keeps of the documents that are still there, and the seconds it took."""
    started = time.perf_counter()
    sketches = step.function.sketch([text for text in texts if text is not None])
    return sketches, time.perf_counter() - started


def _called(step: Step, text: str) -> Any:
    try:
        return step.function(text)
    except Exception as error:
        raise RuntimeError(
            f"the step {step.name!r} failed on the document that begins {text[:60]!r}: {type(error).__name__}: {error}"
        ) from error


def _edited(step: Step, text: str) -> str:
    after = _called(step, text)
    if not isinstance(after, str):
        raise RuntimeError(
            f"the step {step.name!r} gave back {type(after).__name__} for the document that begins {text[:60]!r}; "
            'an "edit" gives back a str, the same one when there is nothing to do.'
        )
    return after


def chunks(texts: Iterable[str | None]) -> Iterator[list[str | None]]:
    """The texts in order, cut into lists of about CHUNK_CHARACTERS."""
    chunk: list[str | None] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += 1 + len(text or "")
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


_steps: list[Pass] = []  # in a worker: the plan, sent once


def _receive(plan: bytes) -> None:
    _steps[:] = dill.loads(plan)


def _run_there(start: int, stop: int, texts: Sequence[str | None], touched: Sequence[bool]) -> list[Changes]:
    return run_chunk(_steps[start:stop], texts, touched)


def _sketch_there(at: int, texts: Sequence[str | None]) -> tuple[Sequence[Any], float]:
    return sketch_chunk(_steps[at], texts)


class Workers:
    """`n` processes that know the plan; with n=1 the work is done here. Used as a context manager.

    On Linux workers are forked, which takes milliseconds where importing torch again takes seconds. That is safe as
    what runs in them takes no lock of another thread: string methods and regular expressions, neither torch nor
    tokenizers. A worker that is killed, for want of memory say, ends the run with an error and does not hang it.
    """

    def __init__(self, plan: Sequence[Pass], n: int = 1):
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"workers={n!r} must be a whole number from 1; this machine has {os.cpu_count()} cores.")
        self.plan, self.n, self.executor = list(plan), n, None

    def __enter__(self) -> Workers:
        if self.n > 1:
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            plan = dill.dumps(self.plan, recurse=True)  # pickle cannot send a function of a notebook
            self.executor = ProcessPoolExecutor(self.n, context, _receive, (plan,))
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def run(self, start: int, stop: int, tasks: Iterable[tuple[list, list]]) -> Iterator[list[Changes]]:
        """The changes of passes `start` to `stop` for each task (texts, touched), in order."""
        if self.executor is None:
            return (run_chunk(self.plan[start:stop], *task) for task in tasks)
        return self._ordered(_run_there, ((start, stop, *task) for task in tasks))

    def sketch(self, at: int, tasks: Iterable[list[str | None]]) -> Iterator[tuple[Sequence[Any], float]]:
        """The sketches of the corpus step `at` for each list of texts, in order, and the seconds each took."""
        if self.executor is None:
            return (sketch_chunk(self.plan[at], texts) for texts in tasks)
        return self._ordered(_sketch_there, ((at, texts) for texts in tasks))

    def _ordered(self, function: Callable[..., Any], tasks: Iterable[tuple]) -> Iterator[Any]:
        waiting: deque = deque()
        for task in tasks:
            with warnings.catch_warnings():  # Python warns of any fork beside threads; see the class for why it is safe
                warnings.simplefilter("ignore", DeprecationWarning)
                waiting.append(self.executor.submit(function, *task))
            if len(waiting) > 2 * self.n:  # no more than this is in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
