"""What is relied on of Ray beyond its public interface, asked of a real one.

What concerns jobs is asked in tests/soak/test_cluster.py: a Ray beside another takes none, as both want one port.
"""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import ray
from ray.air.execution import FixedResourceManager, ResourceRequest
from ray.air.execution._internal.actor_manager import RayActorManager, TrackedActor, TrackedActorTask
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

from search.tune.ray_internals import (
    MEMORY_KILL,
    ask_head,
    dashboard_address,
    dashboard_asks_for_token,
    joined_running_ray,
    say_how_workers_died,
    session_folder,
    show_token,
    submitted_as,
)
from search.tune.tuner import connect

ROOT = Path(__file__).parents[3]
PRIVATE = re.compile(r"\bray(\.\w+)*\._(?!_version__)\w+")  # such as ray._private or ray.air.execution._internal


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


def test_one_file_alone_names_what_is_private_to_ray() -> None:
    packages = ("search", "trainables", "evaluation", "benchmarks", "docs", "tests")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if PRIVATE.search(path.read_text(encoding="utf-8"))}
    here = str(Path(__file__).relative_to(ROOT))
    assert found == {"search/tune/ray_internals.py", "tests/kit/ray_internals.py", here}


def test_a_head_answers_whom_it_lets_in(cluster: None) -> None:
    ask_head(ray.get_runtime_context().gcs_address, timeout=30)


def test_a_question_that_nobody_answers_ends_in_time() -> None:
    with pytest.raises(grpc.RpcError) as error:
        ask_head("127.0.0.1:9", timeout=0.5)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_the_dashboard_is_where_it_is_said_to_be(cluster: None) -> None:
    with urllib.request.urlopen(f"http://{dashboard_address()}", timeout=60) as answer:
        assert b"<html" in answer.read()


def test_the_ray_of_a_local_search_listens_on_loopback_alone(cluster: None) -> None:
    own = psutil.Process()
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in (own, *own.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ, "a cluster that is joined later is left alone"
    assert dashboard_asks_for_token()
    assert not joined_running_ray()
    assert submitted_as() == ""


def test_the_token_that_is_here_is_shown_unless_the_mode_says_otherwise(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_MODE")
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_session_has_a_folder_of_logs(cluster: None) -> None:
    assert (session_folder() / "logs" / "gcs_server.out").is_file()


class Worker:
    """What a manager keeps alive."""

    def pid(self) -> int:
        return os.getpid()


def managed() -> tuple[RayActorManager, TrackedActor, list[Exception]]:
    """(Tune's manager, a worker of it that has started, what it will be told of its end)."""
    manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 1}))
    deaths: list[Exception] = []
    actor = manager.add_actor(
        Worker, {}, ResourceRequest([{"CPU": 1}]), on_error=lambda actor, error: deaths.append(error)
    )
    while not manager.is_actor_started(actor):
        manager.next(timeout=60)
    return manager, actor, deaths


def test_a_worker_that_the_memory_guard_killed_is_one_that_died(cluster: None) -> None:
    say_how_workers_died()
    taken = RayActorManager._actor_task_failed
    say_how_workers_died()
    assert RayActorManager._actor_task_failed is taken
    manager, actor, deaths = managed()
    manager._actor_task_failed(TrackedActorTask(actor), OutOfMemoryError("the node is full"))
    assert len(deaths) == 1
    assert isinstance(deaths[0], RayActorError)
    assert f"{MEMORY_KILL}: the node is full" in str(deaths[0])
    assert not manager.is_actor_started(actor)
    with pytest.raises(RuntimeError, match="unexpected exception"):  # why it is needed: any other error ends Tune
        manager._actor_task_failed(TrackedActorTask(actor), MemoryError("not from the guard"))


def test_of_a_worker_that_does_not_answer_it_is_said_how_it_died(cluster: None) -> None:
    say_how_workers_died()
    manager, actor, deaths = managed()
    lost: Any = ray.remote(num_cpus=0)(Worker).remote()
    os.kill(ray.get(lost.pid.remote()), signal.SIGKILL)
    error = ActorUnavailableError("Socket closed", bytes.fromhex(lost._actor_id.hex()))
    manager._actor_task_failed(TrackedActorTask(actor), error)
    (death,) = deaths
    assert "unavailable" not in str(death)
    assert "worker process has died" in str(death)
