"""What one process of a trial does on its node: alone, or as one of several that train the trial together."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import ray

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
    """

    run: RunFolder
    folder: Path
    metric: str
    resources: ResourcesSpec


class NodeError(Exception):
    """A node on which no trial can run: none is to blame, so the search ends there and can be resumed."""


def require_run(run: RunFolder) -> None:
    """Check that this node sees the run's folder. Nodes that start when trials wait cannot be asked before.

    Raises:
        NodeError: the folder is not here, or only what Ray itself has put in its place.
    """
    if not run.data.is_dir():
        raise NodeError(
            f"{run.data}: not there on node {ray.util.get_node_ip_address()}; "
            "expected the folder of the runs to be one that every node mounts"
        )


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
