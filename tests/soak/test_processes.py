"""A trial over two processes: real TorchTrainer with gloo on CPUs, each process with its half of every batch."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from optuna.trial import TrialState
from ray import tune
from ray.util.state import list_actors
from safetensors.torch import load_file

from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.drive import drive
from tests.kit.toy import new_run, write_spec
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.train import train
from trainables.training.rungs import ADAPTER, Rung

BATCH = 22  # 286 training rows: as many full batches on one device as on two

DROPOUTS = {"hidden_dropout_prob", "attention_probs_dropout_prob"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    connect(None)
    yield
    ray.shutdown()


class KillProcess(tune.Callback):
    """Kills one of a trial's training processes when the trial reports its first rung."""

    def __init__(self, trial: int) -> None:
        self._trial = trial
        self.killed: list[int] = []

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if trial.config["number"] == self._trial and not self.killed:
            here = ray.get_runtime_context().gcs_address  # other tests' clusters run beside this one
            actors = list_actors(address=here, detail=True)
            pids = [actor.pid for actor in actors if "TrainWorker" in actor.class_name]
            self.killed = [pid for pid in pids if pid and psutil.pid_exists(pid)][:1]
            os.kill(self.killed[0], signal.SIGKILL)


def without_dropout(base: Path, folder: Path) -> Path:
    """A copy: each process draws masks of its own, and so no two numbers of processes train alike."""
    copy = shutil.copytree(base, folder)
    for path in copy.rglob("config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | dict.fromkeys(config.keys() & DROPOUTS, 0.0)))
    return copy


def test_two_processes_train_as_one_and_are_stopped_and_replaced(tiny_base: TinyBase, tmp_path: Path) -> None:
    base = without_dropout(tiny_base("bert"), tmp_path / "base")
    spec = write_spec(
        tmp_path,
        base,
        concepts=65,
        space={"targets": "qv", "r": 4, "batch_size": BATCH, "rungs": 2, "lr": [3e-3, 1e-6], "dropout": 0.0},
        start=[{"lr": 3e-3}, {"lr": 1e-6}],
        budget={"trials": 2},
        resources={"workers": 2, "retries": 1},
    )
    run = new_run(tmp_path / "run", spec)
    killer = KillProcess(0)
    good, bad = drive(spec, run, [killer]).trials
    assert killer.killed
    assert good.state == TrialState.COMPLETE
    assert bad.state == TrialState.PRUNED
    assert list(bad.intermediate_values) == [1]
    rungs: list[Rung] = []
    (tmp_path / "alone").mkdir()
    data = TrialData.load(run / "data")
    train(TrialConfig.model_validate(good.user_attrs["config"]), data, rungs.append, folder=tmp_path / "alone")
    assert good.intermediate_values == pytest.approx({r.rung: r.metrics["ndcg@10"] for r in rungs}, abs=1e-4)
    together = load_file(run / "tune" / "trial_0000" / Path(rungs[-1].folder).name / ADAPTER)
    for name, weights in load_file(Path(rungs[-1].folder) / ADAPTER).items():
        assert together[name].numpy() == pytest.approx(weights.numpy(), abs=1e-5), name
