"""What tests use of Ray beyond its public interface: what its launcher accepts, its memory guard's view, draining."""

from __future__ import annotations

from typing import Any

import ray
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory
from ray._private.worker import global_worker
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.core.generated import autoscaler_pb2

__all__ = ["fullness", "prepare_config", "validate_config", "warn_of_preemption"]


def fullness(more: int = 0) -> float:
    """Share of this machine's memory that the guard would count as used, were so many bytes more in use."""
    return float((get_used_memory() + more) / get_system_memory())


def warn_of_preemption() -> None:
    """As a cloud does for a spot machine: the one node with CPUs drains and is gone at the deadline."""
    (worker,) = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]
    gcs: Any = global_worker.gcs_client  # type: ignore[attr-defined]
    gcs.drain_node(worker, reason, "the spot machine is taken back", 1)
