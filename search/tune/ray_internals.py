"""All that embtune uses of Ray beyond its public interface, as ray 2.60 has it.

tests/search/tune/test_ray_internals.py, and of jobs tests/soak/test_cluster.py, say what is relied on, with a real Ray:
they are what to run for another version.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import ray_constants, state, worker
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MEMORY_KILL = "Ray's memory guard ended its worker"
NODE_DEATHS = ("its node has died", "node is terminated", "node was terminated")  # in an actor's error
VERDICT_S = 60.0  # that the head takes at most to find a node dead: five health checks, a few seconds apart
CLUSTER_ID = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # of a head; it takes an empty request


def ask_head(head: str, timeout: float) -> None:
    """Ask the head at `head`, as HOST:PORT, for the least that it tells anybody whom it lets in.

    Raises:
        ray.exceptions.AuthenticationError: the head may want a token, and this process has none to show.
        grpc.RpcError: with the code UNAUTHENTICATED, it wants another token; or it does not answer in time.
    """
    with init_grpc_channel(head) as channel:
        channel.unary_unary(CLUSTER_ID)(b"", timeout=timeout)


def dashboard_address() -> str:
    """HOST:PORT of the dashboard of the Ray that this process has joined; empty: it has none."""
    return (ray.get_runtime_context().gcs_address and worker.get_dashboard_url()) or ""


def show_token() -> None:
    """Have Ray show the token that is here, as its own command line does, unless RAY_AUTH_MODE says how it is to be."""
    logging.getLogger(maybe_enable_token_auth_if_token_available.__module__).setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def session_folder() -> Path:
    """Where the Ray that this process is connected to keeps its logs, and what it writes for Prometheus and Grafana."""
    if worker._global_node is None:
        raise RuntimeError("this process is connected to no Ray")
    return Path(worker._global_node.get_session_dir_path())


def dashboard_asks_for_token() -> bool:
    """Whether the Ray that this process has joined lets nobody in without its token."""
    return bool(is_token_auth_enabled())


def joined_running_ray() -> bool:
    """Whether the Ray that this process is connected to was running before it."""
    return worker._global_node is not None and not worker._global_node.head


def say_how_workers_died() -> None:
    """Have Tune hear of each worker that is lost that it died, and of what; asking twice changes nothing.

    Tune's actor manager stops the whole program at an `OutOfMemoryError`, which it does not know. And of a node that is
    gone the first sign is often that its worker does not answer, which says nothing yet.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager, TrackedActorTask  # takes seconds

    own = RayActorManager._actor_task_failed
    if own.__module__ == __name__:
        return

    def actor_task_failed(self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"{MEMORY_KILL}: {exception}")
        elif isinstance(exception, ActorUnavailableError):
            exception = _found_dead(exception)
        own(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = actor_task_failed  # type: ignore[method-assign]


def _found_dead(error: ActorUnavailableError) -> RayActorError:
    """What the head says of an actor that does not answer; the error as it was, where it says nothing in time."""
    deadline = time.monotonic() + VERDICT_S
    while time.monotonic() < deadline:
        told = state.actors(error.actor_id)
        if told.get("State") == "DEAD":
            return RayActorError(error_msg=told["DeathCause"].actor_died_error_context.error_message or str(error))
        time.sleep(0.2)
    return error


def ask_dashboard(client: JobSubmissionClient, path: str) -> Any:
    """What the dashboard behind a job client answers at a path, from JSON; the client shows its token.

    Raises:
        RuntimeError: it answers with an error.
    """
    response = client._do_request("GET", path)
    if response.status_code != 200:
        client._raise_error(response)
    return response.json()


@contextmanager
def loopback_only() -> Iterator[None]:
    """Have the Ray that is started within the block take 127.0.0.1 for its address, and so listen there alone.

    Ray has a variable for that, for laptops whose firewall would ask otherwise, and reads it when it is imported: its
    processes will, this one has already.
    """
    variable, before = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER
    kept = os.environ.get(variable)
    os.environ[variable], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(variable)
        if kept is not None:
            os.environ[variable] = kept


def submitted_as() -> str:
    """The id of the job that this process is the driver of; empty where it was not submitted as one."""
    config = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR) or "{}")
    return str((config.get("metadata") or {}).get("job_submission_id", ""))


def describe_job(job: str, told: dict[str, str]) -> None:
    """Add to the metadata of a job that was submitted, which Ray itself takes at its start alone."""
    from ray.dashboard.modules.job.common import JobInfoStorageClient

    key, space = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=job).encode(), ray_constants.KV_NAMESPACE_JOB
    head = GcsClient(address=ray.get_runtime_context().gcs_address)
    if (held := head.internal_kv_get(key, space)) is not None:
        info = json.loads(held)
        before = info.get("metadata") or {}
        info["metadata"] = {key: text for key, text in before.items() if key not in told} | told  # told in its order
        head.internal_kv_put(key, json.dumps(info).encode(), True, space)


def say_nothing_of_packages() -> None:
    """Leave out the lines that Ray's job client prints of each folder that it packs and sends."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(name).setLevel(logging.WARNING)
