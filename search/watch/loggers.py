"""Experiment trackers: TensorBoard, Weights & Biases and MLflow, through Ray's own callbacks.

Ray's callbacks log a trial's configuration and results as Tune has them. Here they get what a person looks for: the
configuration alone, a rung's figures at the rung as step, and whether the pruner stopped the trial.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from evaluation.errors import InputError
from search.spec.sections import SearchSpec
from search.study.study import Study
from search.tune.callbacks import UntilTheEnd
from search.tune.messages import NUMBER, RECORD, TRIAL, rung_metric
from search.watch.names import trial_name

PROJECT = "embtune"  # of Weights & Biases, where WANDB_PROJECT names none
MLFLOW_URI = "MLFLOW_TRACKING_URI"
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def require_loggers(spec: SearchSpec) -> None:
    """Check that what the spec logs to is installed and known.

    Raises:
        InputError: a package or the address of an MLflow server is missing.
    """
    for name in spec.logging:
        if find_spec(PACKAGES[name]) is None:
            raise InputError(f"logging: {name}: no package {PACKAGES[name]}, expected the extra: embtune[{name}]")
    if "mlflow" in spec.logging and not os.environ.get(MLFLOW_URI):
        raise InputError(f"logging: mlflow: {MLFLOW_URI} is not set; expected a server, or sqlite:///FILE")


def loggers(study: Study, run: Path) -> list[tune.Callback]:
    """The trackers that the spec names, as callbacks of Tune.

    Args:
        run: the run's folder, where Weights & Biases keeps what it sends, or keeps it for good when it is offline.
    """
    spec = study.spec
    made: dict[str, LoggerCallback] = {}
    if "tensorboard" in spec.logging:
        made["tensorboard"] = TBXLoggerCallback()
    if "wandb" in spec.logging:
        project, mode = os.environ.get("WANDB_PROJECT", PROJECT), os.environ.get("WANDB_MODE")
        from search.watch.wandb_logger import WandbLogger  # importing wandb takes a second

        made["wandb"] = WandbLogger(project=project, group=spec.name, dir=str(run), mode=mode)
    if "mlflow" in spec.logging:
        made["mlflow"] = _MLflow(
            tracking_uri=os.environ[MLFLOW_URI], experiment_name=spec.name, tags={"search": spec.name}
        )
    return [_Readable(logger, study) for logger in made.values()]


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a rung, under names that all trackers take; Ray's callbacks take the step from two of them."""
    found = {f"dev/{rung_metric(name)}": float(value) for name, value in record["metrics"].items()}
    found |= {name: float(record[name]) for name in ("loss", "pairs", "train_s", "eval_s") if name in record}
    if record["train_s"]:
        found["pairs_per_second"] = record["pairs"] / record["rung"] / record["train_s"]  # rungs are equal shares
    step = int(record["rung"])
    return {k: v for k, v in found.items() if math.isfinite(v)} | {"training_iteration": step}


class _Shown:
    """A trial as the trackers see it: under a readable name, with its configuration alone."""

    def __init__(self, trial: Any, search: str) -> None:
        self._trial = trial
        self.config = {k: v for k, v in trial.config[TRIAL].items() if v is not None}
        self.evaluated_params = self.config
        self._name = trial_name(search, trial.config[NUMBER], trial.config[TRIAL])
        self.state = "RUNNING"
        self.last: dict[str, float] = {}

    def __str__(self) -> str:
        return self._name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


class _Readable(UntilTheEnd):
    """Passes on to one of Ray's callbacks what a person looks for."""

    def __init__(self, inner: LoggerCallback, study: Study) -> None:
        self._inner: Any = inner  # which is typed as taking Tune's own trials
        self._study = study
        self._shown: dict[str, _Shown] = {}

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._inner.setup(*arguments, **info)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.trial_id not in self._shown:  # else it goes on after a failure
            shown = self._shown[trial.trial_id] = _Shown(trial, self._study.spec.name)
            self._inner.log_trial_start(shown)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if RECORD in result:
            shown = self._shown[trial.trial_id]
            shown.last = figures(result[RECORD])
            self._inner.log_trial_result(iteration, shown, dict(shown.last))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        super().on_experiment_end(trials, **info)
        self._inner.on_experiment_end(trials, **info)

    def end(self, trial: Any) -> None:
        if (shown := self._shown.pop(trial.trial_id, None)) is None:
            return
        shown.state = self._study.trial(trial.config[NUMBER]).state.name
        if shown.last:
            told = {**shown.last, "pruned": float(shown.state == "PRUNED"), "state": shown.state}
            self._inner.log_trial_result(int(shown.last["training_iteration"]), shown, told)
        self._inner.log_trial_end(shown, failed=shown.state == "FAIL")


class _MLflow(MLflowLoggerCallback):
    """A pruned trial ends as killed."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if trial.state == "PRUNED":
            self.mlflow_util.end_run(run_id=self._trial_runs[trial], status="KILLED")
        else:
            super().log_trial_end(trial, failed)
