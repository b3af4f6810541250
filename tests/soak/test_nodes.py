"""Nodes of a cluster come and go while a search runs: what each loses is made up for, and told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from search.tune.capacity import alive_nodes, require_shared_storage
from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.drive import drive
from tests.kit.ray_internals import warn_of_preemption
from tests.kit.toy import new_run, write_spec
from tests.soak.test_faults import assert_journal_equals_what_trials_wrote, assert_same, view

RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and one node, in processes of their own."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    add_node(made)
    made.wait_for_nodes()
    connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


class BlindNode:
    """A node that joins and does not see a folder: another disk lies over it, as an empty mount point would."""

    def __init__(self, cluster: Cluster, hidden: Path) -> None:
        start = [RAY, "start", "--block", f"--address={cluster.address}", "--num-cpus=1"]
        script = f"mount -t tmpfs none '{hidden}' && exec {' '.join(start)}"
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # killed before
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)


class AtFirstRung(tune.Callback):
    """Does something to the cluster at the first rung of a trial, once each."""

    events: dict[int, Callable[[], None]]  # of the class: Tune pickles its callbacks

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result["rung"] == 1 and (event := self.events.pop(trial.config["number"], None)):
            event()


def kill_worker_node(cluster: Cluster) -> None:
    for node in cluster.worker_nodes.copy():
        cluster.remove_node(node, allow_graceful=False)


def add_node(cluster: Cluster) -> None:
    """Ray gives a node half a minute to start, which a busy machine may exceed."""
    for _ in range(4):
        with suppress(Exception):
            cluster.add_node(num_cpus=1)
            return
    cluster.add_node(num_cpus=1)


def joined(count: int) -> None:
    """Wait until so many nodes are there."""
    while len(alive_nodes()) < count:
        pass


def test_nodes_that_die_that_are_blind_and_that_are_taken_back_cost_a_search_nothing(
    cluster: Cluster, tiny_base: TinyBase, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"budget": {"trials": 4}, "resources": {"retries": 0}, "space": {"dropout": 0.1}}
    spec = write_spec(tmp_path, tiny_base("bert"), **changes, pruner={"name": "none"})
    undisturbed = view(drive(spec, new_run(tmp_path / "undisturbed", spec)))
    run = new_run(tmp_path / "runs" / "run", spec)
    blind: list[BlindNode] = []
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "left alone" in line:
            add_node(cluster)

    def dies() -> None:
        kill_worker_node(cluster)
        add_node(cluster)

    def dies_while_a_blind_one_joins() -> None:
        before = len(alive_nodes())
        blind.append(BlindNode(cluster, run.parent))
        joined(before + 1)
        kill_worker_node(cluster)

    def is_taken_back() -> None:
        blind[0].kill()
        while len(alive_nodes()) > 2:
            pass
        warn_of_preemption()
        add_node(cluster)

    AtFirstRung.events = {0: dies, 1: dies_while_a_blind_one_joins, 2: is_taken_back}
    try:
        study = drive(spec, run, [AtFirstRung()], say, patience_s=120)
    finally:
        for node in blind:
            node.kill()
    assert not study.halted, lines
    assert_same(view(study), undisturbed)
    assert_journal_equals_what_trials_wrote(study, run)
    print("\n".join(lines))
    assert sum("trial 0: its node died; it goes on from rung 1" in line for line in lines) == 1
    (left,) = [line for line in lines if "is left alone from now on" in line]
    assert "data is not there; expected the runs to be in a folder that every node mounts" in left


def test_a_node_that_died_before_the_start_is_passed_over(
    cluster: Cluster, tiny_base: TinyBase, tmp_path: Path
) -> None:
    kill_worker_node(cluster)
    require_shared_storage(tmp_path)  # Ray still takes the node for alive
    add_node(cluster)
    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 1})
    study = drive(spec, new_run(tmp_path / "run", spec))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]
