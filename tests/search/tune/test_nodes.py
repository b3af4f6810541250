"""Nodes that hold trials, nodes that are left alone, and work that is placed on the others: on one machine's Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError

from search.paths import RunFolder
from search.tune.capacity import alive_nodes
from search.tune.nodes import NODE_ID, Nodes
from search.tune.place import on_a_node
from search.tune.tuner import connect
from tests.kit.toy_study import make_spec


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


def test_as_many_trials_run_at_once_as_fit_and_are_asked_for() -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    assert Nodes(make_spec(resources={"cpus": 1, "gpus": 0}), print).at_once() == min(cpus, 12)
    assert Nodes(make_spec(resources={"cpus": cpus, "gpus": 0}), print).at_once() == 1
    assert Nodes(make_spec(resources={"cpus": 1, "gpus": 0, "concurrent": 1}), print).at_once() == 1


def test_a_node_that_is_left_alone_holds_no_trial_and_is_told_once() -> None:
    lines: list[str] = []
    nodes = Nodes(make_spec(resources={"cpus": 1, "gpus": 0}), lines.append, patience_s=0)
    (own,) = alive_nodes()
    assert (nodes.selector(), nodes.hopeless()) == ({}, "")
    for _ in range(2):
        nodes.leave_alone(own, "10.0.0.7", "/mnt/runs is not there")
    assert nodes.selector() == {NODE_ID: f"!in({own})"}
    assert nodes.at_once() == 0
    assert nodes.hopeless() == "/mnt/runs is not there"
    assert [line for line in lines if "left alone" in line] == [
        "node 10.0.0.7 is left alone from now on: /mnt/runs is not there"
    ]


def test_a_search_waits_for_a_node_that_may_come_before_it_gives_up() -> None:
    lines: list[str] = []
    nodes = Nodes(make_spec(resources={"cpus": 1, "gpus": 0}), lines.append, patience_s=1000)
    nodes.leave_alone(next(iter(alive_nodes())), "10.0.0.7", "/mnt/runs is not there")
    assert nodes.hopeless() == ""
    assert "no other node holds a trial: waiting 1000 s for one that does" in lines


def test_work_on_a_run_that_no_node_sees_is_told_and_ends(tmp_path: Path) -> None:
    lines: list[str] = []
    nodes = Nodes(make_spec(resources={"cpus": 1, "gpus": 0}), lines.append)
    (tmp_path / "data").mkdir()
    assert on_a_node(nodes, len, "four") == 4
    assert on_a_node(nodes, str, RunFolder(tmp_path)) == str(RunFolder(tmp_path))
    with pytest.raises(RayTaskError):
        on_a_node(nodes, str, RunFolder(tmp_path / "elsewhere"))
    assert any("elsewhere/data is not there" in line for line in lines)
