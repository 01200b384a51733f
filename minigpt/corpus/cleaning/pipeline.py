"""`clean` and `clean_stream`: steps over the documents of a data set or of a stream, and a report of what they did.

What each pass changed is kept in a cache by a key made of the texts and of every step so far. So a second run over the
same corpus does nothing, and after a change of one step only that step and those behind it run.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value
from tqdm import tqdm

from minigpt.corpus.cleaning.cache import Cache
from minigpt.corpus.cleaning.repair import decode_bytes
from minigpt.corpus.cleaning.report import Report, StepReport, nothing_left
from minigpt.corpus.cleaning.run import Changes, Pass, Settle, Workers, chunks, passes
from minigpt.corpus.cleaning.step import Step
from minigpt.corpus.cleaning.steps import choose

Row = dict[str, Any]
AGAIN = "edits again"  # the report's name for the rounds after the first
BATCH = 1000  # documents that go from the table to Python, and back, at once


def clean(
    dataset: Dataset,
    steps: Sequence[Step | str] | None = None,
    *,
    workers: int = 1,
    cache: str | PathLike | None = None,
    repair_bytes: bool = False,
    show_progress: bool = False,
) -> tuple[Dataset, Report]:
    """Run steps over the column `text`; the documents that are left, with all their columns, and what was done.

    Args:
        steps: in order, each a `Step` or the name of one; None is `STEPS`. Edits that follow each other are repeated on
            the documents they changed until nothing changes, so that cleaning clean text changes nothing.
        workers: processes that share the work.
        cache: a folder that keeps what each step did; the same corpus and steps are never worked on twice.
        repair_bytes: reads bytes that are no UTF-8 as Windows-1252 instead of refusing them.

    Raises:
        ValueError: an unknown step (the nearest is suggested), no documents, a document that is None or undecodable
            (its row and byte are named), or nothing left (the message says which rules removed it).
    """
    started = time.perf_counter()
    plan = passes(choose(steps))
    texts = list(_texts(dataset, repair_bytes))
    report, store = Report([_line(each) for each in plan]), Cache(cache)
    keys = _keys(plan, texts) if store else []
    touched, at = [False] * len(texts), 0
    with Workers(plan, workers) as pool:
        while at < len(plan):
            stop, changes = at + 1, store.load(keys[at]) if store else None
            if changes is not None:
                report.steps[at].cached = True
                _apply([report.steps[at]], [changes], texts)
                if isinstance(plan[at], Settle) or plan[at].kind != "edit":
                    touched = [False] * len(texts)
                else:
                    for row in changes.rows:
                        touched[row] = True
            else:
                stop = _stage_end(plan, at)
                done = [Changes() for _ in plan[at:stop]]
                stage = _stage(pool, at, stop, texts, report, done, touched)
                about = " to ".join({report.steps[i].step: None for i in (at, stop - 1)})
                texts = list(tqdm(stage, about, len(texts), unit=" documents", disable=not show_progress))
                touched = [False] * len(texts)
                for key, changes in zip(keys[at:stop], done):
                    store.save(key, changes)
            at = stop
    report.seconds = time.perf_counter() - started
    if not any(text is not None for text in texts):
        raise nothing_left(report)
    return _rebuilt(dataset, texts), report


def clean_stream(
    rows: Iterable[Row], steps: Sequence[Step | str] | None = None, *, workers: int = 1, repair_bytes: bool = False
) -> tuple[Iterator[Row], Report]:
    """The same for more text than memory holds: rows with a `text` in, rows out; the report fills as they are read.

    Raises:
        ValueError: as `clean`, while the rows are read; at once for a corpus step that needs all documents together.
    """
    chosen = choose(steps)
    for step in chosen:
        if not step.streams:
            raise ValueError(
                f"the step {step.name!r} needs all documents at once and cannot run on a stream; use clean, or give it "
                "a function with the two methods of CorpusRule, sketch and judge."
            )
    plan = passes(chosen)
    report = Report([_line(each) for each in plan])
    return _stream(rows, plan, workers, repair_bytes, report), report


def _stream(rows: Iterable[Row], plan: list[Pass], workers: int, repair_bytes: bool, report: Report) -> Iterator[Row]:
    started = time.perf_counter()
    waiting: deque[Row] = deque()  # the rows whose text is on its way through the steps

    def enter() -> Iterator[str]:
        for number, row in enumerate(rows):
            waiting.append(row)
            yield _text(row.get("text"), number, repair_bytes)

    kept, at = False, 0
    with Workers(plan, workers) as pool:
        flow: Iterable[str | None] = enter()
        while at < len(plan):
            stop = _stage_end(plan, at)
            flow, at = _stage(pool, at, stop, flow, report), stop
        for text in flow:
            row = waiting.popleft()
            if text is not None:
                kept = True
                yield row | {"text": text}
            report.seconds = time.perf_counter() - started
    if report.steps[0].documents_in == 0:
        raise ValueError("there are no documents to clean: the stream is empty.")
    if not kept:
        raise nothing_left(report)


def _stage_end(plan: Sequence[Pass], at: int) -> int:
    """Where the passes that run together with the one `at` end: a corpus step runs alone."""
    alone = [i for i in range(at, len(plan)) if _is_corpus(plan[i])]
    return at + 1 if alone[:1] == [at] else (alone or [len(plan)])[0]


def _is_corpus(each: Pass) -> bool:
    return isinstance(each, Step) and each.kind == "corpus"


def _stage(
    pool: Workers,
    at: int,
    stop: int,
    texts: Iterable[str | None],
    report: Report,
    done: list[Changes] | None = None,
    touched: Sequence[bool] = (),
) -> Iterator[str | None]:
    """The texts after the passes `at` to `stop`, None for those that are gone; what happened goes to report and `done`."""
    lines = report.steps[at:stop]
    if _is_corpus(pool.plan[at]):
        parts = _judged(pool, at, texts)
    else:
        parts = _worked(pool, at, stop, texts, touched)
    offset = 0
    for part, results in parts:
        _apply(lines, results, part, offset)
        for whole, changes in zip(done or (), results):
            whole.extend(changes, offset)
        offset += len(part)
        yield from part


def _worked(
    pool: Workers, at: int, stop: int, texts: Iterable[str | None], touched: Sequence[bool]
) -> Iterator[tuple[list[str | None], list[Changes]]]:
    waiting: deque[list[str | None]] = deque()

    def tasks() -> Iterator[tuple[list, list]]:
        offset = 0
        for chunk in chunks(texts):
            waiting.append(chunk)
            yield chunk, list(touched[offset : offset + len(chunk)]) or [False] * len(chunk)
            offset += len(chunk)

    for results in pool.run(at, stop, tasks()):
        yield waiting.popleft(), results


def _judged(pool: Workers, at: int, texts: Iterable[str | None]) -> Iterator[tuple[list[str | None], list[Changes]]]:
    step, waiting = pool.plan[at], deque()

    def tasks() -> Iterator[list[str | None]]:
        for chunk in chunks(texts) if step.streams else [list(texts)]:
            waiting.append(chunk)
            yield chunk

    if step.streams:
        judge, sketched = step.function.judge(), pool.sketch(at, tasks())
    else:
        judge, sketched = step.function, (([t for t in chunk if t is not None], 0.0) for chunk in tasks())
    for sketches, seconds in sketched:
        started = time.perf_counter()
        reasons = judge(sketches)
        changes = Changes(seconds=seconds + time.perf_counter() - started)
        chunk = waiting.popleft()
        alive = [row for row, text in enumerate(chunk) if text is not None]
        if len(reasons) != len(alive):
            raise RuntimeError(f"the step {step.name!r} judged {len(reasons)} documents and was given {len(alive)}.")
        for row, reason in zip(alive, reasons):
            if reason is not None:
                changes.add(row, None, reason)
        yield chunk, [changes]


def _line(each: Pass) -> StepReport:
    return StepReport(AGAIN, "edit") if isinstance(each, Settle) else StepReport(each.name, each.kind)


def _apply(lines: Sequence[StepReport], results: Sequence[Changes], texts: list[str | None], offset: int = 0) -> None:
    """Make the changes of each pass in `texts`, and write them into its line of the report."""
    documents = sum(text is not None for text in texts)
    characters = sum(len(text) for text in texts if text is not None)
    for line, changes in zip(lines, results, strict=True):
        line.documents_in += documents
        line.characters_in += characters
        line.seconds += changes.seconds
        for row, text, reason in zip(changes.rows, changes.texts, changes.reasons, strict=True):
            before = texts[row] or ""
            line.note(offset + row, before, text, reason)
            texts[row] = text
            documents -= text is None
            characters += len(text or "") - len(before)


def _keys(plan: Sequence[Pass], texts: Iterable[str]) -> list[str]:
    """For each pass, a name for what it was given: the texts and every step before it, and the step itself."""
    key = hashlib.blake2b(digest_size=16)
    for text in texts:
        key.update(b"%d:" % len(text))
        key.update(text.encode("utf-8", "surrogatepass"))
    names = []
    for each in plan:
        key.update((each.fingerprint() if isinstance(each, Step) else AGAIN).encode())
        names.append(key.hexdigest())
    return names


def _text(value: Any, row: int, repair_bytes: bool) -> str:
    if isinstance(value, bytes):
        return decode_bytes(value, f"document {row}", repair_bytes)
    if not isinstance(value, str):
        raise ValueError(
            f"document {row} has {value!r} where text is expected; take such rows out first: "
            'dataset.filter(lambda row: row["text"] is not None).'
        )
    return value


def _texts(dataset: Dataset, repair_bytes: bool) -> Iterator[str]:
    if "text" not in dataset.column_names:
        raise ValueError(
            f"the data set has no column 'text'; it has {', '.join(dataset.column_names) or 'none'}. "
            'Name the right one: dataset.rename_column("...", "text").'
        )
    if len(dataset) == 0:
        raise ValueError("there are no documents to clean: the data set has no rows.")
    column = dataset.select_columns("text").with_format("arrow")
    values = itertools.chain.from_iterable(t["text"].to_pylist() for t in column.iter(batch_size=BATCH))
    for row, value in enumerate(values):
        yield _text(value, row, repair_bytes)


def _rebuilt(dataset: Dataset, texts: list[str | None]) -> Dataset:
    """The rows whose text is left, with the new text in its old place."""
    kept = [row for row, text in enumerate(texts) if text is not None]
    features = Features(dataset.features | {"text": Value("string")})
    table = dataset.select(kept).with_format("arrow")[:]
    new = pa.chunked_array(
        [[texts[row] for row in kept[i : i + BATCH]] for i in range(0, len(kept), BATCH)], pa.string()
    )
    place = table.column_names.index("text")
    return Dataset(table.set_column(place, pa.field("text", pa.string()), new), info=DatasetInfo(features=features))
