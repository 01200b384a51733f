"""The laboratory of notebook 07: `python -m minigpt.lab.experiments.compression` writes results/07_compression.json.

First what is trained: pruned models that recover with the whole one as their teacher, and small students. As many at once as
there are processors, each on one thread. Then the forms in which a model is kept, alone on the machine: bytes, losses on
windows that the base model has not read, and tokens a second, in this package and in others. Rows that the file has already
are not measured again, and speeds compare within one run only: take all rows of forms out to have them measured anew. Trained
models are kept in runs/compression.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minigpt.hardware import machine
from minigpt.lab.experiments.compression_forms import forms, measured
from minigpt.lab.experiments.compression_training import RUNS, SOURCES, WINDOWS, Row, trained
from minigpt.lab.experiments.vocabulary import write_results

RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "07_compression.json"


def _one(name: str) -> Row:
    torch.set_num_threads(1)  # two runs side by side are done sooner than one after the other on two threads
    with threadpool_limits(1):
        return trained(name)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing from the results, and write them after each row. Ctrl-C keeps what is done."""
    parser = argparse.ArgumentParser(description="Pruning, distillation, and the forms in which a model is kept.")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="trainings at once (one per processor)"
    )
    parser.add_argument("--only", choices=("trained", "forms"), help="one of the two parts")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows = json.loads(options.output.read_text(encoding="utf-8"))["rows"] if options.output.exists() else []
    how = {
        "command": "python -m minigpt.lab.experiments.compression",
        "text": f"{WINDOWS} windows of 512 tokens from each of {', '.join(SOURCES)}, not read by data/checkpoints/base",
        "machine": machine(),
    }

    def keep(row: Row) -> None:
        rows.append(row)
        write_results(options.output, how, rows)

    if options.only != "forms":
        done = {row["name"] for row in rows if row["experiment"] == "trained"}
        _train([name for name in RUNS if name not in done], options.workers, keep)
    if options.only != "trained":
        done = {row["name"] for row in rows if row["experiment"] == "form"}
        for row in measured({name: make for name, make in forms() if name not in done}):
            keep(row)
    return 0


def _train(names: list[str], workers: int, keep: Callable[[Row], None]) -> None:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_one, name) for name in names]
        try:
            for task in tqdm(as_completed(tasks), total=len(tasks), unit="run"):
                keep(task.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    sys.exit(main())
