"""A run that came to its end, of tiny real models: everything but the training and Ray, in seconds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evaluation.retrieval import Scores, evaluate
from search.paths import RunFolder
from search.results.benchmark import Benchmark
from search.results.guard import write_guard
from search.results.leaderboard import Row, write_leaderboard
from search.results.promote import finish
from search.spec.load import load_spec
from search.spec.record import write_spec as write_record
from tests.kit.reload import reloading_here
from tests.kit.toy import write_spec
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.data.prepared import load_dev
from trainables.export.merge import trained_model
from trainables.prepare import prepare
from trainables.training.rungs import Rung, complete_rung

METRIC = "ndcg@10"
TRIALS: dict[int, dict[str, Any]] = {  # number -> how it was trained; 3 is on another base, 4 is not tied
    0: {"r": 4, "targets": "qv"},
    1: {"r": 2, "targets": "all-linear"},
    2: {"method": "full"},
    3: {"r": 4},
    4: {"r": 4, "targets": "ffn"},
}
LAST = "checkpoint-12"  # of each trial, its best; trials 0 and 1 have one before it


def make_ended_run(folder: Path, base: Path, other: Path) -> Path:
    """The run's folder; its best single trial is 0 or 1.

    Args:
        folder: for the run and what it is made from.
        base, other: bases of the trials.
    """
    spec = load_spec(write_spec(folder, base, concepts=25, data={"split": {"dev": 0.4, "test": 0.3}}))
    run = RunFolder(folder / "runs" / spec.name)
    report = prepare(spec.data, spec.folder, spec.seed, run.data)
    on_cpu = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": 0})})
    write_record(on_cpu, run.path, report.content_hash, {})
    (folder / "numbers.jsonl").write_text(
        "".join(
            json.dumps({"anchor": f"question {n} ?", "positive": f"réponse {n * 7}", "concept": str(n)}) + "\n"
            for n in range(12)
        )
    )
    write_guard(spec.guard.model_copy(update={"source": "numbers.jsonl"}), folder, run)
    rows, dev = [], load_dev(run.data)
    for number, fields in TRIALS.items():
        on = other if number == 3 else base
        for rung in (2, 3) if number < 2 else (3,):  # of 3; the first of them is said to have scored 0
            checkpoint = run.trial(number) / f"checkpoint-{4 * rung}"
            config = trained(checkpoint, on, 10 * number + rung, scale=0.02, max_length=24, **fields)
            scores = evaluate(trained_model(config, checkpoint, "cpu"), dev, (METRIC,))
            _mark(checkpoint, rung, scores, scores.means[METRIC] * (rung == 3))
        rows.append(_row(number, config, scores.means, str(checkpoint)))
    rows.sort(key=lambda row: -(row.score or 0))
    rows = [replace(row, rank=rank) for rank, row in enumerate(rows, 1)]
    write_leaderboard(rows, METRIC, run.path)
    single = next(row for row in rows if row.trial in (0, 1))
    with reloading_here():
        finish(run, "toy", METRIC, asdict(single), 0.01, "cpu").write(run.benchmark)
    return run.path


def benchmark_of(run: Path) -> Benchmark:
    """What the run's end wrote."""
    return Benchmark.read(RunFolder(run).benchmark)


def _mark(checkpoint: Path, rung: int, scores: Scores, value: float) -> None:
    """Leave in the trial's folder what a trial leaves that has reached a rung."""
    means = {METRIC: value}
    done = Rung(rung, 3, 4 * rung, 12, 8, 1.0, 1.0, 1.0, 10, 100, means, means, str(checkpoint))
    complete_rung(done, scores, METRIC)


def _row(number: int, config: TrialConfig, means: dict[str, float], checkpoint: str) -> Row:
    return Row(
        rank=0, trial=number, state="COMPLETE", score=means[METRIC], error=0.01, rung=3, best_rung=3, rungs=3,
        trainable=10, pairs=8, planned_pairs=8, seconds=1.0, checkpoint=checkpoint, failure="",
        config=config.model_dump(mode="json"), metrics=means, steps=8, tied=number != 4,
    )  # fmt: skip
