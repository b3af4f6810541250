"""What a search of many trials on many nodes costs beside its training: Tune's controller, the study, the live table.

    python benchmarks/scale.py [--trials N] [--nodes N] [--sampler NAME] [--out FILE] [--plot FILE]

The nodes are Ray's own, each with a raylet and agents of its own, all on this machine. A toy trial stands in for the
training: it reports its four rungs at once, with the record that a real one reports. All else is embtune's: searcher,
stopper, study with its journal, pruner, live table. So the seconds of a trial are overhead, and on one machine for all
nodes an upper bound of it. Reported for each hundredth trial: wall seconds a trial since the last, of which ask, tell
and live table in the driver, and the driver's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from machine import processor
from ray import tune
from ray.cluster_utils import Cluster
from rich.console import Console

from search.paths import RunFolder
from search.screen.live import LiveTable
from search.spec.sections import ResourcesSpec, SearchSpec
from search.study.study import Study
from search.tune import tuner
from search.tune.messages import NUMBER, RECORD, RUNG, TRIAL
from search.tune.nodes import Nodes

METRIC = "ndcg@10"
RUNGS = 4


def toy_trial(config: dict[str, Any], *, run: RunFolder, metric: str, resources: ResourcesSpec) -> None:
    """Report every rung at once: best at r 16 and lr 1e-3, growing with training."""
    import math

    trial = config[TRIAL]
    height = 0.9 - 0.1 * abs(math.log10(trial["lr"]) + 3) - 0.01 * abs(trial["r"] - 16)
    for rung in range(1, RUNGS + 1):
        metrics = dict.fromkeys((metric, "mrr@10", "map@100", "recall@10"), height * (0.6 + 0.1 * rung))
        record = {
            "metrics": metrics,
            "errors": dict.fromkeys(metrics, 0.01),
            "train_s": 90.0,
            "eval_s": 10.0,
            "trainable": 1000 * trial["r"],
            "total": 10**8,
            "step": 100 * rung,
            "steps": 100 * RUNGS,
            "pairs": 3200 * rung,
            "folder": str(run.trial(config[NUMBER]) / f"checkpoint-{100 * rung}"),
        }
        tune.report({RUNG: rung, RECORD: record})


def make_spec(trials: int, sampler: str) -> SearchSpec:
    lr = {"low": 1e-5, "high": 1e-2, "log": True}
    space = {"base": "some/base", "r": [4, 8, 16, 32, 64], "lr": lr, "dropout": {"low": 0.0, "high": 0.3}}
    return SearchSpec.model_validate(
        {
            "name": "scale",
            "data": {"source": "none"},
            "space": {**space, "warmup": {"low": 0.0, "high": 0.2}, "rungs": RUNGS},
            "budget": {"trials": trials},
            "sampler": {"name": sampler},
            "resources": {"cpus": 1, "gpus": 0},
        }
    )


class Timed:
    """Adds up the seconds of calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, method, timed)


class Sample(tune.Callback):
    """Takes the figures at each so many ended trials."""

    study: Study  # of the class: Tune pickles its callbacks
    timed: Timed
    rows: list[dict[str, float]]
    every: int

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        ended = sum(trial.status == "TERMINATED" for trial in trials)
        if ended >= (len(self.rows) + 1) * self.every:
            memory = psutil.Process().memory_info().rss / 2**20
            self.rows.append({"trials": ended, "wall": time.perf_counter(), "memory_mib": memory, **self.timed.seconds})


def measured(trials: int, nodes: int, sampler: str) -> dict[str, Any]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, wait=False)
    cluster.wait_for_nodes()
    tuner.connect(cluster.address)
    tuner.run_trial = toy_trial
    spec = make_spec(trials, sampler)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        run = RunFolder(Path(folder))
        at_once = Nodes(spec, print)
        study, timed = Study(run.path, spec, at_once.at_once()), Timed()
        timed.wrap(study, "next_trial", "ask")
        timed.wrap(study, "report", "tell")
        console = Console(file=nowhere, force_terminal=True, width=120, height=50)
        every = max(1, trials // 10)
        Sample.study, Sample.timed, Sample.rows, Sample.every = study, timed, [], every
        start = time.perf_counter()
        with LiveTable(study, console) as table:
            timed.wrap(table, "on_step_end", "live")
            tuner.make_tuner(spec, run, study, [table, Sample()], at_once).fit()
        reopen = time.perf_counter()
        Study(run.path, spec)
        reopen = time.perf_counter() - reopen
        journal = run.journal.stat().st_size
    ray.shutdown()
    cluster.shutdown()
    return {
        "points": points(Sample.rows, start),
        "trials": len(study.trials),
        "reopen_s": round(reopen, 3),
        "journal_mib": round(journal / 2**20, 2),
    }


def points(rows: list[dict[str, float]], start: float) -> list[dict[str, float]]:
    """Means a trial, in milliseconds, over the trials since the point before."""
    made, before = [], {"trials": 0.0, "wall": start, "ask": 0.0, "tell": 0.0, "live": 0.0}
    for row in rows:
        count = row["trials"] - before["trials"]
        each = {f"{name}_ms": round(1000 * (row[name] - before[name]) / count, 2) for name in list(before)[1:]}
        made.append({"trials": row["trials"], "memory_mib": round(row["memory_mib"], 1), **each})
        before = row
    return made


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    count = [point["trials"] for point in result["points"]]
    for name, label in (("wall", "all (wall)"), ("ask", "ask"), ("tell", "tell"), ("live", "live table")):
        left.plot(count, [point[f"{name}_ms"] for point in result["points"]], marker="o", label=label)
    left.set(xlabel="trials ended", ylabel="milliseconds a trial", yscale="log")
    left.legend()
    right.plot(count, [point["memory_mib"] for point in result["points"]], marker="o")
    right.set(xlabel="trials ended", ylabel="memory of the driver, MiB", ylim=(0, None))
    figure.suptitle(
        f"{result['trials']} toy trials on {result['nodes']} simulated nodes, {result['machine']}", fontsize=10
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    parser.add_argument("--plot", type=Path, default=Path(__file__).parent / "results" / "scale.png")
    arguments = parser.parse_args()
    load = os.getloadavg()
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": processor(),
        "load_before": load,
        "nodes": arguments.nodes,
        "sampler": arguments.sampler,
        **measured(arguments.trials, arguments.nodes, arguments.sampler),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(result, arguments.plot)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
