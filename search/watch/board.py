"""Tells whoever looks from outside how the search stands: the job's metadata, and the metrics."""

from __future__ import annotations

import time
from typing import Any

import ray

from search.results.leaderboard import leaderboard
from search.study.budget import devices
from search.study.study import Study
from search.tune.callbacks import Unsaved
from search.tune.ray_internals import describe_job, submitted_as
from search.watch.metrics import Metrics
from search.watch.progress import Progress, table_text
from trainables.classification.report import LabelReport
from trainables.data.report import DataReport

EVERY_S = 3.0  # at most this often: the rows of a thousand trials take a twentieth of a second to make


class Board(Unsaved):
    """Publishes the study's state now and then, and at the end of the trials."""

    def __init__(self, study: Study, tokens: float) -> None:
        self._study = study
        self._metrics = Metrics(study.spec.name, study.spec.metric, tokens)
        self._job = submitted_as()
        self._last, self._retries = -EVERY_S, 0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._last >= EVERY_S:
            self._publish(trials)
            self._last = time.monotonic()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._retries += 1
        self._metrics.retried()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._publish(trials)

    def _publish(self, trials: list[Any]) -> None:
        spec, known = self._study.spec, self._study.trials
        rows = leaderboard(known, spec.metric, self._study.space.rungs)
        progress = Progress.of(rows, devices(spec.resources))
        last = {t.number: t.user_attrs[f"rung_{t.last_step}"] for t in known if t.last_step}
        self._metrics.show(rows, progress, last)
        self._metrics.waiting(sum(trial.status == "PENDING" for trial in trials))
        if self._job:
            told = progress.told(spec.metric, spec.budget.trials)
            told |= {"time": self._study.left(), "nodes": nodes_text(), "retries": str(self._retries)}
            describe_job(self._job, told | {"leaderboard": table_text(rows, spec.metric)})


def nodes_text() -> str:
    """How many nodes there are, and what of them is in use."""
    alive = sum(node["Alive"] for node in ray.nodes())
    have, free = ray.cluster_resources(), ray.available_resources()
    used = [f"{have[key] - free.get(key, 0):g} of {have[key]:g} {key}s" for key in ("CPU", "GPU") if have.get(key)]
    return f"{alive} alive, {' and '.join(used)} in use"


def mean_tokens(report: DataReport | LabelReport) -> float:
    """Tokens of a training pair, or of a classifier's input, on the mean; 0 where they were measured in characters."""
    columns = ("input",) if isinstance(report, LabelReport) else ("anchor", "positive")
    lengths = [report.lengths.get(column) for column in columns]
    if any(one is None or one.unit != "tokens" for one in lengths):
        return 0.0
    return sum(min(one.mean, one.max_length or one.mean) for one in lengths if one is not None)
