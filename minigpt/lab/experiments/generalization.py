"""The laboratory of notebook 06: `python -m minigpt.lab.experiments.generalization` writes results/06_generalization.json.

Overfitting and its remedies on a language model (`generalization_text`), and augmentation, folds and robustness on films
(`generalization_films`). As many runs at once as there are processors, each on one thread; rows that the file has
already are not measured again, so that it goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minigpt.lab.experiments import generalization_films, generalization_text
from minigpt.lab.experiments.vocabulary import write_results

RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "06_generalization.json"
EXPERIMENTS = ("text", "leak", "augmentation", "choice", "folds", "robustness")
Row = dict[str, Any]
Run = tuple[Row, Callable[[Row], Row]]


def runs() -> Iterator[Run]:
    """Settings of every row, and what measures it; each once, the most wanted first."""
    seen: list[Row] = []
    for settings, measure in chain(generalization_text.runs(), generalization_films.runs()):
        if settings not in seen:
            seen.append(settings)
            yield settings, measure


def missing(wanted: Sequence[Run], rows: Sequence[Row]) -> list[Run]:
    """The runs that no row stands for."""
    return [run for run in wanted if not any(run[0].items() <= row.items() for row in rows)]


def _one(settings: Row, measure: Callable[[Row], Row]) -> Row:
    torch.set_num_threads(1)  # two runs side by side are done sooner than one after the other on two threads
    with threadpool_limits(1):
        return measure(settings)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing from the results, and write them after each run. Ctrl-C keeps what is done.

    A run that fails is named at the end, when the others are done, and measured the next time.
    """
    parser = argparse.ArgumentParser(description="Overfitting, remedies, augmentation, folds, robustness.")
    parser.add_argument("--only", choices=EXPERIMENTS, help="one experiment")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at once (one per processor)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = json.loads(options.output.read_text(encoding="utf-8"))["rows"] if options.output.exists() else []
    how = {
        "command": "python -m minigpt.lab.experiments.generalization",
        "text": "shakespeare by scene, vocabulary 1024; films: movie snippets; models: 3 layers, and data/checkpoints/base",
        "machine": f"{options.workers} processes of one thread, {platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    failed: list[str] = []
    wanted = [run for run in runs() if options.only in (None, run[0]["experiment"])]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        tasks = {pool.submit(_one, *run): run[0] for run in missing(wanted, rows)}
        try:
            for task in tqdm(as_completed(tasks), total=len(tasks), unit="run"):
                if (error := task.exception()) is not None:
                    failed.append(f"{tasks[task]}: {error!r}")
                    continue
                rows.append(task.result())
                write_results(options.output, how, rows)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise RuntimeError(f"{len(failed)} runs were not measured; the others are written. " + "; ".join(failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
