"""The ladder of ideas from the baseline to fast-1.88: `python -m minigpt.lab.experiments.ladder` writes
results/04_speedrun.json.

Each rung changes one thing and keeps what came before; a run is judged at its end, and evaluation costs no seconds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt.hardware import machine
from minigpt.lab.experiments.vocabulary import write_results
from minigpt.recipes import ladder
from minigpt.speedrun import TARGETS, speedrun

UPDATES = (2000, 1600, 1250, 1000, 800, 640, 500, 400, 320, 250, 225, 200, 180, 160, 140, 120, 100)
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "04_speedrun.json"


def climb(target: float, seeds: Sequence[int], text: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the ladder, a run for each rung and seed, judged at its end.

    The baseline has its own number of updates. Every later rung gets the fewest of `UPDATES` with which the first seed
    still reaches the target, searched downwards from what the rung before it took.
    """
    most = UPDATES[0]
    for number, rung in enumerate(ladder()):
        found = None
        for updates in (n for n in UPDATES if n <= most):
            run = speedrun(rung, target, seeds[0], text, max_steps=updates, eval_every=updates)
            if found is None or run.reached:
                found, most = run, updates
            if not run.reached or number == 0:
                break
        others = (speedrun(rung, target, seed, text, max_steps=most, eval_every=most) for seed in seeds[1:])
        for run in itertools.chain([found], others):
            yield {"rung": number, **asdict(run)}


def main(arguments: list[str] | None = None) -> int:
    """Climb the ladder, then run fast-1.88 and fast-1.47, and write the results after each run."""
    parser = argparse.ArgumentParser(description="The ladder from the baseline to fast-1.88, and the two fast recipes.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    how = {"command": "python -m minigpt.lab.experiments.ladder", "machine": machine()}
    rows: list[dict[str, Any]] = []
    runs = climb(TARGETS["fast-1.88"], options.seeds)
    fast = (asdict(speedrun(name, TARGETS[name], seed)) for name in TARGETS for seed in options.seeds)
    for row in itertools.chain(runs, fast):
        rows.append(row)
        write_results(options.output, how, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
