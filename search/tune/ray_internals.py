"""All that embtune uses of Ray beyond its public interface, as ray 2.60 has it.

tests/search/tune/test_ray_internals.py says what is relied on, with a real Ray: it is what to run for another version.
"""

from __future__ import annotations

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.worker import get_dashboard_url
from ray.exceptions import OutOfMemoryError, RayActorError

MEMORY_KILL = "Ray's memory guard ended its worker"
NODE_DEATHS = ("its node has died", "node is terminated", "node was terminated")  # in an actor's error
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
    return (ray.get_runtime_context().gcs_address and get_dashboard_url()) or ""


def take_memory_kills_for_deaths() -> None:
    """Have Tune treat a worker that the memory guard killed as one that died; asking twice changes nothing.

    Tune's actor manager stops the whole program at an `OutOfMemoryError`, which it does not know.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager, TrackedActorTask  # takes seconds

    own = RayActorManager._actor_task_failed
    if own.__module__ == __name__:
        return

    def actor_task_failed(self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"{MEMORY_KILL}: {exception}")
        own(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = actor_task_failed  # type: ignore[method-assign]
