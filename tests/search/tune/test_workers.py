"""Trials over several processes: what they say when they cannot begin, fail, or find no room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError
from ray.util.queue import Queue

from evaluation.errors import InputError
from search.paths import RunFolder
from search.run import cause
from search.spec.sections import ResourcesSpec
from search.tune.capacity import capacity
from search.tune.process import NodeError, Setting
from search.tune.tuner import connect
from search.tune.workers import _part
from trainables.config import TrialConfig


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


def test_a_process_on_a_node_without_the_runs_folder_says_so_and_blames_no_trial(tmp_path: Path) -> None:
    rungs, verdicts = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
    setting = Setting(RunFolder(tmp_path / "run"), tmp_path / "trial", "ndcg@10", ResourcesSpec(workers=2))
    with pytest.raises(NodeError, match=r"run/data is not there; expected the runs to be in a folder"):
        _part(TrialConfig(base="b"), rungs, verdicts, setting)
    assert isinstance(rungs.get(timeout=30), NodeError)


def test_a_task_that_fails_without_a_word_is_told_by_its_errors_name() -> None:
    @ray.remote(max_retries=0)
    def fails(error: type[Exception], *words: str) -> None:
        raise error(*words)

    for arguments, told in (((MemoryError,), "MemoryError"), ((ValueError, "one\ntwo"), "one")):
        with pytest.raises(RayError) as caught:
            ray.get(fails.remote(*arguments))
        assert cause(caught.value) == told


def test_what_no_nodes_have_together_is_refused() -> None:
    assert capacity(ResourcesSpec(cpus=1, workers=2)) == int(ray.cluster_resources()["CPU"]) // 2
    with pytest.raises(InputError, match="a trial asks for 999 times 1 CPUs"):
        capacity(ResourcesSpec(cpus=1, workers=999))
