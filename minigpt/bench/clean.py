"""Cleaning beside its peers, in MB/s, and in memory: what `minigpt bench clean` prints.

`datatrove` is a peer to compare with in development, not a dependency: pip install "datatrove[io,processing]" spacy.
Every figure of one table is measured in one run, on the same documents: so the ratios hold on another machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from minigpt.corpus import is_cached, load_corpus
from minigpt.corpus.cleaning import STEPS, Step, clean, clean_stream
from minigpt.corpus.stories import stories

SOURCES = ("shakespeare", "sotu", "chitchat", "tweets", "stories")
PEERS = ("FTFYFormatter", "PIIFormatter", "GopherQualityFilter", "GopherRepetitionFilter", "C4QualityFilter")
PEER_OF = {"encoding": PEERS[:1], "private_data": PEERS[1:2], "quality": PEERS[2:4]}  # step -> what does about the same
KEEPS_MUCH = ("near_duplicates",)  # keeps a part of every document: as its docstring says, not for endless streams


@dataclass(frozen=True)
class Speed:
    """One line: megabytes of text a second, and of the peer where there is one. `peer` names it."""

    name: str
    mb_per_s: float
    peer: str = ""
    peer_mb_per_s: float | None = None

    def __str__(self) -> str:
        line = f"{self.name:24} {self.mb_per_s:8.1f} MB/s"
        if self.peer_mb_per_s:
            line += f"   {self.peer_mb_per_s:7.2f} {self.peer}: {self.mb_per_s / self.peer_mb_per_s:.0f} times as fast"
        return line


def documents(megabytes: float = 4.0, seed: int = 0) -> Dataset:
    """Documents of every source that is here, in equal parts and in random order, about `megabytes` of text."""
    chance, texts = random.Random(seed), []
    names = [name for name in SOURCES if is_cached(name)]
    for name in names:
        size, rows = 0, load_corpus(name)["text"][:]
        chance.shuffle(rows)
        for text in rows:
            if size >= megabytes * 1e6 / len(names):
                break
            texts.append(text)
            size += len(text.encode())
    chance.shuffle(texts)
    return Dataset.from_dict({"text": texts})


def bench_clean(megabytes: float = 4.0, workers: int = 2) -> Iterator[Speed]:
    """Each step alone on one core, then all of them on `workers` cores; beside datatrove, where it is installed."""
    dataset = documents(megabytes)
    texts = dataset["text"][:]
    size = sum(len(text.encode()) for text in texts) / 1e6
    peers = _peers(texts, size) if _installed("datatrove") else {}
    for step in STEPS:
        clean(dataset.select(range(min(20, len(texts)))), [step])  # loads its words, once
        _, report = clean(dataset, [step])
        names = [name for name in PEER_OF.get(step.name, ()) if name in peers]
        together = 1 / sum(1 / peers[name] for name in names) if names else None
        yield Speed(step.name, size / max(1e-9, report[step.name].seconds), " + ".join(names), together)
    started = time.perf_counter()
    clean(dataset, [step for step in STEPS if step.name != "near_duplicates"], workers=workers)
    seconds = time.perf_counter() - started
    peer = size / _timed(lambda: _peer_pipeline(texts, workers)) if peers else None
    yield Speed(f"pipeline, workers={workers}", size / seconds, "datatrove's five filters", peer)
    seconds = _timed(lambda: clean(dataset, ["near_duplicates"], workers=workers))
    peer = size / _timed(lambda: _peer_minhash(texts, workers)) if peers else None
    yield Speed(f"MinHash, workers={workers}", size / seconds, "datatrove's MinHash", peer)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peer(name: str) -> Any:
    from datatrove.pipeline import filters, formatters

    return getattr(filters, name, None)() if hasattr(filters, name) else getattr(formatters, name)()


def _peers(texts: list[str], size: float) -> dict[str, float]:
    """MB/s of each of datatrove's filters, called directly: without what its executor adds."""
    from datatrove.data import Document

    speeds = {}
    for name in PEERS:
        peer = _peer(name)
        work = (lambda text, f=peer: f.filter(Document(text=text, id="0"))) if "Filter" in name else peer.format
        work("Once, to load what it needs.")
        speeds[name] = size / _timed(lambda work=work: [work(text) for text in texts])
    return speeds


def _run_peer(steps: list, folder: str, workers: int, tasks: int | None = None) -> None:
    from datatrove.executor import LocalPipelineExecutor

    logs = tempfile.mkdtemp(dir=folder)
    said, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # each of its processes writes a log there
    try:
        LocalPipelineExecutor(steps, tasks=tasks or workers, workers=workers, logging_dir=logs).run()
    finally:
        os.dup2(said, 2)
        os.close(said), os.close(silence)


def _written(texts: list[str], folder: str, parts: int) -> Any:
    from datatrove.pipeline.readers import JsonlReader

    source = Path(folder) / "in"
    source.mkdir()
    for part in range(parts):
        lines = [json.dumps({"text": text, "id": str(i)}) for i, text in enumerate(texts[part::parts])]
        (source / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return JsonlReader(str(source))


def _peer_pipeline(texts: list[str], workers: int) -> None:
    from datatrove.pipeline.writers import JsonlWriter

    with tempfile.TemporaryDirectory() as folder:
        reader = _written(texts, folder, workers)
        _run_peer([reader, *map(_peer, PEERS), JsonlWriter(f"{folder}/out")], folder, workers)


def _peer_minhash(texts: list[str], workers: int) -> None:
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.writers import JsonlWriter

    with tempfile.TemporaryDirectory() as folder:
        reader, config = _written(texts, folder, workers), MinhashConfig()
        signatures, buckets, remove = (f"{folder}/{name}" for name in ("signatures", "buckets", "remove"))
        _run_peer([reader, MinhashDedupSignature(signatures, config)], folder, workers)
        finding = MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)
        _run_peer([finding], folder, workers, tasks=config.num_buckets)
        _run_peer([MinhashDedupCluster(input_folder=buckets, output_folder=remove, config=config)], folder, 1)
        _run_peer([reader, MinhashDedupFilter(input_folder=remove), JsonlWriter(f"{folder}/out")], folder, workers)


@dataclass(frozen=True)
class Memory:
    """What a stream of `gigabytes` took: the largest resident memory, workers included, before and during."""

    gigabytes: float
    documents: int
    seconds: float
    before_gb: float
    peak_gb: float

    def __str__(self) -> str:
        return (
            f"{self.gigabytes:.2f} GB in {self.documents:,} documents, {self.gigabytes * 1000 / self.seconds:.1f} MB/s: "
            f"{self.peak_gb:.2f} GB of memory at most, {self.before_gb:.2f} GB before the first document"
        )


def bench_memory(gigabytes: float = 2.0, workers: int = 2) -> Memory:
    """Clean a stream of generated text, larger than memory should hold, with every step that keeps little of it.

    Raises:
        ValueError: psutil, which measures memory, is not installed.
    """
    if not _installed("psutil"):
        raise ValueError('measuring memory needs psutil, which is not installed; run: pip install -e ".[course]".')
    from minigpt.course import MemoryMeter

    steps: list[Step] = [step for step in STEPS if step.name not in KEEPS_MUCH]
    rows, _ = clean_stream(_endless(int(gigabytes * 1e9)), steps, workers=workers)
    started, n = time.perf_counter(), 0
    with MemoryMeter(os.getpid()) as meter:
        before = meter.peak
        for _ in rows:
            n += 1
    return Memory(gigabytes, n, time.perf_counter() - started, before / 1e9, meter.peak / 1e9)


def _endless(size: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Documents of about 4 kB made of sentences of stories, none of them twice in one, until they are `size` bytes."""
    chance = random.Random(seed)
    lines = (line for row in stories(400, seed) for line in row["text"].replace("\n", " ").split(". "))
    sentences = list(dict.fromkeys(lines))
    while size > 0:
        text = ". ".join(chance.sample(sentences, k=80)) + "."
        size -= len(text)
        yield {"text": text}
