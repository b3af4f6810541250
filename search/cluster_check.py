"""What a cluster has, and whether a trial can ever run on it. Ray itself would wait for ever for what no node has."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from evaluation.errors import InputError
from search.spec import ResourcesSpec


@dataclass(frozen=True)
class Capacity:
    """Trials that fit at once, and the nodes they fit on."""

    trials: int
    nodes: int


def capacity(resources: ResourcesSpec) -> Capacity:
    """How many trials the running cluster can hold at once.

    Raises:
        InputError: no node has what one trial asks for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = [
        min(
            int(node.get("CPU", 0) // resources.cpus),
            int(node.get("GPU", 0) / resources.gpus + 1e-9) if resources.gpus else 10**6,
        )
        for node in nodes
    ]
    if not any(fits):
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial asks for {resources.cpus} CPUs and {resources.gpus:g} GPUs on one node; "
            f"the cluster's nodes have {have}"
        )
    return Capacity(sum(fits), sum(1 for fit in fits if fit))
