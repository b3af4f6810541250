"""The Ray shell around `trainables.train.train`: one Tune trial."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from search.disk import unwritable
from search.optuna_bridge import FAILURE, HALT, NUMBER

if TYPE_CHECKING:
    from trainables.checkpoint import Rung
    from trainables.data import TrialData


def trial_folder(run: Path, number: int) -> Path:
    """Where a trial keeps its checkpoints, beside Tune's own files."""
    return run / "tune" / f"trial_{number:04d}"


def run_trial(config: dict[str, Any], *, run: str, metric: str, threads: int) -> None:
    """Train one trial of the run in the folder `run` and report each rung to Tune.

    A trial that was interrupted goes on from its last complete rung: its folder says which. What the configuration
    itself makes impossible is reported, not raised: Tune would try it again. So is a disk that takes nothing more, for
    which no trial is to blame: the search ends there and can be resumed.
    """
    import torch

    from evaluation.errors import InputError
    from trainables.config import TrialConfig
    from trainables.out_of_memory import train_in_memory
    from trainables.sanity import TrialFailed

    # Ray sets OMP_NUM_THREADS, but a warm worker may have been started for another trial.
    torch.set_num_threads(threads)

    retried: dict[str, int] = {}

    def report(rung: Rung) -> None:
        record = asdict(rung) | retried
        tune.report({"rung": rung.rung, rung_metric(metric): rung.metrics[metric], "record": record})

    def smaller(tokens: int) -> None:
        retried["micro_batch_tokens"] = tokens

    trial = TrialConfig.model_validate(config["trial"])
    folder = trial_folder(Path(run), config[NUMBER])
    try:
        train_in_memory(
            trial, _data(run), report, smaller=smaller, folder=folder, metric=metric, cache=Path(run) / "cache"
        )
    except (TrialFailed, InputError) as error:
        tune.report({FAILURE: str(error), "rung": 0})
    except Exception:
        reason = unwritable(folder)
        if not reason:
            raise
        tune.report({HALT: reason, "rung": 0})


def rung_metric(metric: str) -> str:
    """The metric's name as Tune's logs hold it."""
    return metric.replace("@", "_at_")


@lru_cache(maxsize=1)
def _data(run: str) -> TrialData:
    """Training pairs and dev task, kept by a warm worker from trial to trial."""
    from trainables.data import TrialData

    return TrialData.load(Path(run) / "data")
