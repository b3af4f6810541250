"""What a cluster has, and whether a trial can ever run on it. Ray itself would wait for ever for what no node has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evaluation.errors import InputError
from search.spec.sections import ResourcesSpec

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # `ray up` leaves it on the head


def capacity(resources: ResourcesSpec, autoscaled: bool = False) -> int:
    """How many trials the cluster can hold at once: its nodes, or those that its autoscaler may start.

    Args:
        resources: of one trial.
        autoscaled: on the head of a cluster that `ray up` made, count the nodes that its configuration allows.

    Raises:
        InputError: no node has what one trial asks for, and none that has it can be started.
    """
    nodes = cluster_nodes(autoscaled)
    trials = trials_at_once(nodes, resources)
    if not trials:
        times, on_one = (f"{resources.workers} times ", "") if resources.workers > 1 else ("", " on one node")
        have = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial asks for {times}{resources.cpus} CPUs and {resources.gpus or 0:g} GPUs{on_one}; "
            f"the cluster's nodes have {have}{'' if autoscaled else _unusable(nodes)}"
        )
    return trials


def with_gpus(resources: ResourcesSpec, nodes: Sequence[Mapping[str, float]]) -> ResourcesSpec:
    """The resources, decided where they leave `gpus` open: one for each process where a trial then fits, else none."""
    if resources.gpus is not None:
        return resources
    on_gpus = resources.model_copy(update={"gpus": 1.0})
    return on_gpus if trials_at_once(nodes, on_gpus) else resources.model_copy(update={"gpus": 0.0})


def trials_at_once(nodes: Sequence[Mapping[str, float]], resources: ResourcesSpec) -> int:
    """How many trials the nodes hold; the processes of one may be on several."""
    return sum(room(node, resources) for node in nodes) // resources.workers


def cluster_nodes(autoscaled: bool = False) -> list[dict[str, float]]:
    """Resources of the cluster's nodes, or of those that its autoscaler may start.

    On this machine alone, a GPU counts where torch can use it: Ray asks the driver, which knows no build of torch.
    """
    nodes = [resources for _, resources in alive_nodes().values()]
    return startable() or nodes if autoscaled else usable_nodes(nodes, torch_uses_gpus)


def alive_nodes() -> dict[str, tuple[str, dict[str, float]]]:
    """Node -> (address, resources), of the nodes that run now."""
    return {node["NodeID"]: (node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]}


def startable() -> list[dict[str, float]]:
    """Resources of every worker that the cluster's launcher may run; none where no launcher made the cluster."""
    return startable_nodes(yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))) if BOOTSTRAP.exists() else []


def usable_nodes(nodes: list[dict[str, float]], usable: Callable[[], bool]) -> list[dict[str, float]]:
    """The nodes without their GPUs where these are not usable, which is asked only where there are any."""
    if not any(node.get("GPU") for node in nodes) or usable():
        return nodes
    return [node | {"GPU": 0.0} for node in nodes]


def torch_uses_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def _unusable(nodes: Sequence[Mapping[str, float]]) -> str:
    """What a message adds where Ray sees a GPU and these nodes have none."""
    if any(node.get("GPU") for node in nodes) or not ray.cluster_resources().get("GPU"):
        return ""
    return " that torch can use (its build or the driver is for another)"


def startable_nodes(config: Mapping[str, Any]) -> list[dict[str, float]]:
    """Resources of every node that a cluster launcher's configuration allows to run, workers only."""
    types = config.get("available_node_types", {})
    workers = {name: kind for name, kind in types.items() if name != config.get("head_node_type")}
    limit = int(config.get("max_workers", 0))
    nodes = [kind["resources"] for kind in workers.values() for _ in range(int(kind.get("max_workers", limit)))]
    return nodes[:limit]


def room(node: Mapping[str, float], resources: ResourcesSpec) -> int:
    """How many processes of trials a node can hold."""
    gpus, by_gpu, asked = int(node.get("GPU", 0)), 10**6, resources.gpus or 0
    if asked >= 1:
        by_gpu = gpus // int(asked)
    elif asked:
        by_gpu = gpus * int(1 / asked + 1e-9)  # a fraction is of one GPU
    return min(int(node.get("CPU", 0) // resources.cpus), by_gpu)


def require_shared_storage(runs: Path) -> None:
    """Check that every node that runs now sees the folder of the runs: trials write their checkpoints there.

    Nodes that start later are checked by the trials that they get.

    Raises:
        InputError: names the nodes that do not.
    """
    own = ray.get_runtime_context().get_node_id()
    addresses = {node: address for node, (address, _) in alive_nodes().items() if node != own}
    if not addresses:
        return
    with tempfile.NamedTemporaryFile(dir=runs, prefix=".seen-by-all-") as probe:
        look = ray.remote(num_cpus=0)(_sees)
        answers = {
            node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(probe.name)
            for node in addresses
        }
        blind = [node for node, answer in answers.items() if not _answer(answer)]
    if blind:
        named = ", ".join(addresses[node] for node in blind)
        raise InputError(f"--runs {runs}: not visible from {named}; expected a folder that every node mounts")


def _answer(seen: ray.ObjectRef[bool]) -> bool:
    """Whether a node sees the probe; one that is gone before it says so does not stand in the way."""
    try:
        return bool(ray.get(seen))
    except RayError:
        return True


def _sees(path: str) -> bool:
    return Path(path).exists()
