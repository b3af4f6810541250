"""What a cluster has, and whether a trial can ever run on it. Ray itself would wait for ever for what no node has."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evaluation.errors import InputError
from search.spec.load import ResourcesSpec

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # `ray up` leaves it on the head


def capacity(resources: ResourcesSpec, autoscaled: bool = False) -> int:
    """How many trials the cluster can hold at once: its nodes, or those that its autoscaler may start.

    Args:
        resources: of one trial.
        autoscaled: on the head of a cluster that `ray up` made, count the nodes that its configuration allows.

    Raises:
        InputError: no node has what one trial asks for, and none that has it can be started.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if autoscaled and BOOTSTRAP.exists():
        nodes = startable_nodes(yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))) or nodes
    fits = [room(node, resources) for node in nodes]
    trials = sum(fits) // resources.workers  # the processes of one trial may be on several nodes
    if not trials:
        times, on_one = (f"{resources.workers} times ", "") if resources.workers > 1 else ("", " on one node")
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial asks for {times}{resources.cpus} CPUs and {resources.gpus:g} GPUs{on_one}; "
            f"the cluster's nodes have {have}"
        )
    return trials


def startable_nodes(config: Mapping[str, Any]) -> list[dict[str, float]]:
    """Resources of every node that a cluster launcher's configuration allows to run, workers only."""
    types = config.get("available_node_types", {})
    workers = {name: kind for name, kind in types.items() if name != config.get("head_node_type")}
    limit = int(config.get("max_workers", 0))
    nodes = [kind["resources"] for kind in workers.values() for _ in range(int(kind.get("max_workers", limit)))]
    return nodes[:limit]


def room(node: Mapping[str, float], resources: ResourcesSpec) -> int:
    """How many processes of trials a node can hold."""
    gpus, by_gpu = int(node.get("GPU", 0)), 10**6
    if resources.gpus >= 1:
        by_gpu = gpus // int(resources.gpus)
    elif resources.gpus:
        by_gpu = gpus * int(1 / resources.gpus + 1e-9)  # a fraction is of one GPU
    return min(int(node.get("CPU", 0) // resources.cpus), by_gpu)


def require_shared_storage(runs: Path) -> None:
    """Check that every node sees the folder of the runs: trials write their checkpoints there.

    Raises:
        InputError: names the nodes that do not.
    """
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != _own_node()]
    if not others:
        return
    with tempfile.NamedTemporaryFile(dir=runs, prefix=".seen-by-all-") as probe:
        look = ray.remote(num_cpus=0)(_sees)
        answers = {
            node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(probe.name)
            for node in others
        }
        blind = [node for node, answer in answers.items() if not ray.get(answer)]
    if blind:
        addresses = ", ".join(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in blind)
        raise InputError(f"--runs {runs}: not visible from {addresses}; expected a folder that every node mounts")


def _own_node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _sees(path: str) -> bool:
    return Path(path).exists()
