"""A node of a cluster dies in the middle of a trial: another takes the trial over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.drive import drive
from tests.kit.toy import new_run, write_spec
from tests.soak.test_faults import assert_journal_equals_tunes_view
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.train import train
from trainables.training.rungs import Rung


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and one node, in processes of their own."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


class KillNode(tune.Callback):
    """Kills the node at a trial's first rung, and brings another."""

    cluster: Cluster  # of the class: Tune pickles its callbacks

    def __init__(self) -> None:
        self.pids: list[int] = []

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result["pid"] not in self.pids:
            self.pids.append(result["pid"])
        if len(self.pids) == 1 and result["rung"] == 1:
            (worker,) = self.cluster.worker_nodes
            self.cluster.remove_node(worker, allow_graceful=False)
            self.cluster.add_node(num_cpus=1)


def test_the_trial_of_a_dead_node_goes_on_elsewhere(cluster: Cluster, tiny_base: TinyBase, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 1}, space={"dropout": 0.1})
    run = new_run(tmp_path / "run", spec)
    KillNode.cluster = cluster
    killer = KillNode()
    study = drive(spec, run, [killer])
    assert len(killer.pids) == 2
    (trial,) = study.trials
    assert trial.state.name == "COMPLETE"
    assert_journal_equals_tunes_view(study, run)
    # As if nothing had happened.
    rungs: list[Rung] = []
    (tmp_path / "alone").mkdir()
    config = TrialConfig.model_validate(trial.user_attrs["config"])
    train(config, TrialData.load(run / "data"), rungs.append, folder=tmp_path / "alone")
    assert trial.intermediate_values == pytest.approx({r.rung: r.metrics["ndcg@10"] for r in rungs}, abs=1e-6)
