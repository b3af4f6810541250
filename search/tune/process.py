"""What one process of a trial does on its node: alone, or as one of several that train the trial together."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from evaluation.errors import first_line
from search.paths import RunFolder
from search.spec.sections import ResourcesSpec
from search.spec.task_data import load_trial_data

if TYPE_CHECKING:
    from trainables.classification.prepared import LabelledData
    from trainables.config import TrialConfig
    from trainables.data.prepared import TrialData
    from trainables.training.rungs import Rung


@dataclass(frozen=True)
class Setting:
    """What a trial needs beside its configuration.

    Attributes:
        run: the run's folder, with its data.
        folder: the trial's own, for its checkpoints.
        metric: dev metric that chooses between its rungs.
        resources: of the trial.
        avoid: labels that Ray asks of the nodes of its processes.
    """

    run: RunFolder
    folder: Path
    metric: str
    resources: ResourcesSpec
    avoid: dict[str, str] = field(default_factory=dict)


class NodeError(Exception):
    """A node on which no trial can run: none is to blame, so it is tried elsewhere.

    Attributes:
        node, address: which.
        reason: why.
    """

    def __init__(self, reason: str, node: str, address: str) -> None:
        super().__init__(reason, node, address)
        self.reason, self.node, self.address = reason, node, address

    def __str__(self) -> str:
        return self.reason

    @classmethod
    def here(cls, reason: str) -> NodeError:
        """Of the node that this process runs on."""
        return cls(reason, ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())


def on_node(run: RunFolder, *names: str) -> RunFolder:
    """The run's folder as this node has it: the one that every node mounts, or a copy of the run's bucket.

    Nodes that start when trials wait cannot be asked before.

    Args:
        names: of what is needed beside the data, where it is a copy.

    Raises:
        NodeError: the folder is not here, or only what Ray itself has put in its place; or the bucket cannot be read.
    """
    if run.url:
        from search.storage.bucket import on_this_node

        try:
            return on_this_node(run, *names)
        except Exception as error:  # what this node lacks: credentials, a way to the bucket, room for the copy
            raise NodeError.here(f"{run.url} cannot be copied there ({first_line(error)})") from None
    if not run.data.is_dir():
        raise NodeError.here(f"{run.data} is not there; expected the runs to be in a folder that every node mounts")
    return run


def train_here(trial: TrialConfig, report: Callable[[Rung], None], setting: Setting) -> None:
    """Train in this process, or as this process's part of a trial in several."""
    import torch

    from trainables.config import ClassifierConfig
    from trainables.plan.memory import share_of_memory
    from trainables.train import train

    # Ray sets OMP_NUM_THREADS, but a warm worker may have been started for another trial.
    torch.set_num_threads(setting.resources.cpus)
    try:
        train(
            trial,
            _data(setting.run, "classification" if isinstance(trial, ClassifierConfig) else "retrieval"),
            report,
            folder=setting.folder,
            metric=setting.metric,
            cache=setting.run.cache,
            device=setting.resources.device,
            memory=share_of_memory(setting.resources.memory_gb, setting.resources.gpus or 0),
        )
    finally:
        if setting.resources.gpus:
            # The trainer's cycles hold the model until they are collected, and the next trial may be another worker's.
            gc.collect()
            torch.cuda.empty_cache()


@lru_cache(maxsize=1)
def _data(run: RunFolder, task: str) -> TrialData | LabelledData:
    """What is trained on and the dev task, kept by a warm worker from trial to trial."""
    return load_trial_data(task, run.data)
