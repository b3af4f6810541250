"""Seconds from a trial's start to its first training step, in a cold and in a warm worker; share of overhead.

    python benchmarks/warm_start.py SPEC [--trials N] [--out FILE]

Runs the trials of a spec one after the other through Ray Tune, as `embtune search` does, without promotion. Start is
when the worker gets the trial; the first step is the first call of the trainer's training step. Overhead is the part of
the wall time of all trials, Ray's own included, that is neither training nor dev evaluation as the rungs record them;
the first trial, which pays the imports, is shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray import tune

from search.paths import RunFolder
from search.spec.load import load_spec
from search.spec.sections import ResourcesSpec
from search.study.study import Study
from search.tune import tuner
from search.tune.nodes import Nodes
from search.tune.trial import run_trial
from trainables.prepare import prepare

MARK = "first_step.json"


def timed_trial(config: dict[str, Any], *, run: RunFolder, metric: str, resources: ResourcesSpec) -> None:
    """`run_trial` that leaves the seconds to its first training step in the trial's folder."""
    start = time.time()
    from trainables.training import retrieval

    plain = retrieval._Trainer.training_step
    mark = run.trial(config["number"]) / MARK

    def training_step(self: Any, *arguments: Any, **options: Any) -> Any:
        if not mark.exists():
            mark.write_text(json.dumps({"first_step_s": time.time() - start, "pid": os.getpid()}))
        return plain(self, *arguments, **options)

    retrieval._Trainer.training_step = training_step  # type: ignore[method-assign]
    try:
        run_trial(config, run=run, metric=metric, resources=resources)
    finally:
        retrieval._Trainer.training_step = plain  # type: ignore[method-assign]


class Clock(tune.Callback):
    """When each trial was started and ended, as the driver sees it."""

    def __init__(self) -> None:
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.started.setdefault(trial.config["number"], time.time())

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.ended[trial.config["number"]] = time.time()


def measure(spec_path: Path, trials: int, folder: Path) -> dict[str, Any]:
    spec = load_spec(spec_path)
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": trials})})
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"concurrent": 1})})
    prepare(spec.data, spec.folder, spec.seed, folder / "data")
    tuner.run_trial = timed_trial
    clock = Clock()
    tuner.connect(None)
    study = Study(folder, spec)
    begin = time.time()
    tuner.make_tuner(spec, RunFolder(folder), study, [clock], Nodes(spec)).fit()
    wall = time.time() - begin
    ray.shutdown()
    rows = []
    for trial in study.trials:
        records = [trial.user_attrs[f"rung_{rung}"] for rung in trial.intermediate_values]
        busy = sum(record["train_s"] + record["eval_s"] for record in records)
        mark = json.loads((RunFolder(folder).trial(trial.number) / MARK).read_text())
        rows.append({"trial": trial.number, "state": trial.state.name, **mark, "train_and_eval_s": round(busy, 2)})
    ends = [clock.ended[row["trial"]] for row in rows]
    warm_wall = ends[-1] - ends[0]
    warm_busy = sum(row["train_and_eval_s"] for row in rows[1:])
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg(),
        "spec": spec_path.name,
        "cold_first_step_s": round(rows[0]["first_step_s"], 2),
        "warm_first_step_s": round(median(row["first_step_s"] for row in rows[1:]), 2),
        "workers": len({row["pid"] for row in rows}),
        "wall_s": round(wall, 1),
        "overhead": round(1 - sum(row["train_and_eval_s"] for row in rows) / wall, 3),
        "overhead_once_warm": round(1 - warm_busy / warm_wall, 3),
        "trials": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "warm_start.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(options.spec, options.trials, Path(folder))
    options.out.write_text(json.dumps(outcome, indent=1) + "\n")
    print(json.dumps({key: value for key, value in outcome.items() if key != "trials"}, indent=1))


if __name__ == "__main__":
    main()
