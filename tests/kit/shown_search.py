"""A process that shows the figures of a search which never ends on the cluster at an address, for who reads them."""

from __future__ import annotations

import sys
import time

from search.results.leaderboard import Row
from search.tune.tuner import connect
from search.watch.metrics import Metrics
from search.watch.progress import Progress
from search.watch.provisioning import provision


def row(trial: int, state: str) -> Row:
    return Row(
        rank=0,
        trial=trial,
        state=state,
        score=0.4 + trial / 100,
        error=0.01,
        rung=trial + 1,
        best_rung=trial + 1,
        rungs=4,
        trainable=1000,
        pairs=100 * (trial + 1),
        planned_pairs=400,
        seconds=10.0,
        checkpoint="",
        failure="",
        config={},
        metrics={},
    )


def main(address: str) -> None:
    connect(address)
    provision()
    metrics = Metrics("demo", "ndcg@10", 64.0)
    rows = [row(0, "PRUNED"), row(1, "RUNNING"), row(2, "COMPLETE"), row(3, "FAIL")]
    record = {"rung": 2, "pairs": 200, "train_s": 8.0, "metrics": {"ndcg@10": 0.41}, "gpu_memory": 2**30}
    while True:
        metrics.show(rows, Progress.of(rows, 1.0), {1: record})
        metrics.waiting(2)
        metrics.retried()
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
