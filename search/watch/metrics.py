"""A search's figures on the metrics endpoint of its Ray: Prometheus reads them as `ray_embtune_...`.

search/watch/grafana.json shows them; tests hold that it asks for these names and labels alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ray.util.metrics import Counter, Gauge

from search.results.leaderboard import Row
from search.watch.progress import Progress

# name -> (what it says, its labels); each has the label `search` too
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "embtune_trials": ("trials by state", ("state",)),
    "embtune_trials_waiting": ("trials that were proposed and wait for a node", ()),
    "embtune_best_score": ("best dev score so far", ("metric",)),
    "embtune_score": ("dev score of a trial at a rung", ("trial", "rung")),
    "embtune_pairs_per_second": ("training pairs a second since a trial's last rung; 0 once it has ended", ("trial",)),
    "embtune_tokens_per_second": ("the same in tokens, by the mean length of the data's texts", ("trial",)),
    "embtune_gpu_memory_bytes": ("most memory of its GPU that a trial's process has held", ("trial",)),
    "embtune_device_hours": ("device-hours spent, and saved by pruning", ("kind",)),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "embtune_waiting_seconds": ("seconds that trials have waited for a node, together", ()),
    "embtune_retries": ("trials that were started again after their worker or node died", ()),
}
STATES = ("COMPLETE", "PRUNED", "RUNNING", "FAIL")


class Metrics:
    """Sets the figures. One search of a process at a time."""

    def __init__(self, search: str, metric: str, tokens: float) -> None:
        """Name the figures.

        Args:
            search: its name.
            metric: that is maximised.
            tokens: of a training pair, anchor and positive, on the mean; 0: not known.
        """
        self._search, self._metric, self._tokens = search, metric, tokens
        self._gauges = {n: Gauge(n, what, ("search", *labels)) for n, (what, labels) in GAUGES.items()}
        self._counters = {n: Counter(n, what, ("search", *labels)) for n, (what, labels) in COUNTERS.items()}
        self._over: set[int] = set()  # trials that have ended and were shown so
        self._looked = time.monotonic()

    def show(self, rows: Sequence[Row], progress: Progress, records: dict[int, dict[str, Any]]) -> None:
        """Set what has changed.

        Args:
            rows: of the trials.
            progress: of the same moment.
            records: trial -> the record of its last rung.
        """
        for state in STATES:
            self._set("embtune_trials", progress.states.get(state, 0), state=state)
        if progress.best is not None and progress.best.score is not None:
            self._set("embtune_best_score", progress.best.score, metric=self._metric)
        self._set("embtune_device_hours", progress.spent, kind="spent")
        self._set("embtune_device_hours", progress.saved, kind="saved")
        for row in rows:
            # Ray forgets a gauge once it was read: what still holds is said again, what is over once.
            if row.trial in records and (row.state == "RUNNING" or row.trial not in self._over):
                self._show_trial(row, records[row.trial])
                if row.state != "RUNNING":
                    self._over.add(row.trial)

    def waiting(self, trials: int) -> None:
        """So many trials wait, and have since the last call."""
        now = time.monotonic()
        seconds, self._looked = now - self._looked, now
        self._set("embtune_trials_waiting", trials)
        if trials:
            self._counters["embtune_waiting_seconds"].inc(trials * seconds, {"search": self._search})

    def retried(self) -> None:
        self._counters["embtune_retries"].inc(1, {"search": self._search})

    def _show_trial(self, row: Row, record: dict[str, Any]) -> None:
        trial = str(row.trial)
        self._set("embtune_score", record["metrics"][self._metric], trial=trial, rung=str(row.rung))
        new, seconds = record["pairs"] / record["rung"], record["train_s"]  # rungs are equal shares
        pace = new / seconds if seconds and row.state == "RUNNING" else 0.0
        self._set("embtune_pairs_per_second", pace, trial=trial)
        if self._tokens:
            self._set("embtune_tokens_per_second", pace * self._tokens, trial=trial)
        if "gpu_memory" in record:
            self._set("embtune_gpu_memory_bytes", record["gpu_memory"], trial=trial)

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._gauges[name].set(value, {"search": self._search, **labels})
