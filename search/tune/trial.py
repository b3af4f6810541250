"""The Ray shell around `trainables.train.train`: one Tune trial."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from search.spec.load import ResourcesSpec
from search.tune.bridge import FAILURE, HALT, KILLS, NUMBER
from search.tune.disk import unwritable

if TYPE_CHECKING:
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

    run: Path
    folder: Path
    metric: str
    resources: ResourcesSpec


def trial_folder(run: Path, number: int) -> Path:
    """Where a trial keeps its checkpoints, beside Tune's own files."""
    return run / "tune" / f"trial_{number:04d}"


def run_trial(config: dict[str, Any], *, run: str, metric: str, resources: ResourcesSpec) -> None:
    """Train one trial of the run in the folder `run` and report each rung to Tune.

    A trial that was interrupted goes on from its last complete rung: its folder says which. What the configuration
    itself makes impossible is reported, not raised: Tune would try it again. So is a disk that takes nothing more, for
    which no trial is to blame: the search ends there and can be resumed.
    """
    from evaluation.errors import InputError
    from trainables.config import TrialConfig
    from trainables.training.out_of_memory import train_in_memory
    from trainables.training.sanity import TrialFailed

    setting = Setting(Path(run), trial_folder(Path(run), config[NUMBER]), metric, resources)
    retried: dict[str, int] = {}

    def report(rung: Rung) -> None:
        record = asdict(rung) | retried
        tune.report({"rung": rung.rung, rung_metric(metric): rung.metrics[metric], "record": record})

    def attempt(trial: TrialConfig) -> None:
        if resources.workers > 1:
            from search.tune.workers import train_in_workers as run_it
        else:
            run_it = train_here
        run_it(trial, report, setting)

    def smaller(tokens: int) -> None:
        retried["micro_batch_tokens"] = tokens

    try:
        train_in_memory(
            TrialConfig.model_validate(config["trial"]),
            attempt,
            smaller=smaller,
            workers=resources.workers,
            kills=config.get(KILLS, 0),
        )
    except (TrialFailed, InputError) as error:
        tune.report({FAILURE: str(error), "rung": 0})
    except Exception:
        reason = unwritable(setting.folder)
        if not reason:
            raise
        tune.report({HALT: reason, "rung": 0})


def train_here(trial: TrialConfig, report: Callable[[Rung], None], setting: Setting) -> None:
    """Train in this process, or as this process's part of a trial in several."""
    import torch

    from trainables.plan.memory import share_of_memory
    from trainables.train import train

    # Ray sets OMP_NUM_THREADS, but a warm worker may have been started for another trial.
    torch.set_num_threads(setting.resources.cpus)
    try:
        train(
            trial,
            _data(setting.run),
            report,
            folder=setting.folder,
            metric=setting.metric,
            cache=setting.run / "cache",
            device=device_of(setting.resources.gpus),
            memory=share_of_memory(setting.resources.memory_gb, setting.resources.gpus),
        )
    finally:
        if setting.resources.gpus:
            # The trainer's cycles hold the model until they are collected, and the next trial may be another worker's.
            gc.collect()
            torch.cuda.empty_cache()


def device_of(gpus: float) -> str | None:
    """Where work that asks Ray for so many GPUs runs; none: the first GPU. Ray hides none from work that asks for 0."""
    return None if gpus else "cpu"


def rung_metric(metric: str) -> str:
    """The metric's name as Tune's logs hold it."""
    return metric.replace("@", "_at_")


@lru_cache(maxsize=1)
def _data(run: Path) -> TrialData:
    """Training pairs and dev task, kept by a warm worker from trial to trial."""
    from trainables.data.prepared import TrialData

    return TrialData.load(run / "data")
