"""One search that is logged to TensorBoard, Weights & Biases (offline) and MLflow (a database), for real."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tensorboardX.proto.event_pb2 import Event

from search.results.leaderboard import Row, read_leaderboard
from tests.conftest import TinyBase
from tests.kit.command import embtune
from tests.kit.toy import write_spec

ENDS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}  # of MLflow's runs


@dataclass(frozen=True)
class Logged:
    """A search that was logged: its folder, its rows, and MLflow's runs by name."""

    run: Path
    rows: list[Row]
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def logged(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("logged")
    # Among a part's own passages these few steps tell trials apart, so that one of them is stopped.
    start = [{"r": 4, "targets": "qv", "lr": 5e-3}]
    changes: dict[str, Any] = {
        "start": start,
        "data": {"distractors": False},
        "logging": ["tensorboard", "wandb", "mlflow"],
    }
    spec = write_spec(folder, tiny_base("bert"), budget={"trials": 3}, **changes)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "WANDB_MODE": "offline"}
    done = embtune("search", spec, cwd=folder, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was not logged" not in done.stdout, done.stdout
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    run = folder / "runs" / "toy"
    return Logged(run, read_leaderboard(run)[1], {found.info.run_name: found for found in runs})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), from TensorBoard's files: records of length, checksum, event, checksum."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.*")):
        for event in events(path.read_bytes()):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def events(data: bytes) -> Iterator[Event]:
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


def test_mlflow_has_a_run_for_each_trial_that_ends_as_the_trial_did(logged: Logged) -> None:
    assert {row.state for row in logged.rows} == {"COMPLETE", "PRUNED"}
    for row in logged.rows:
        (run,) = [run for name, run in logged.runs.items() if name.startswith(f"toy trial {row.trial:04d} ")]
        assert run.info.status == ENDS[row.state]
        assert run.data.params["r"] == str(row.config["r"])
        assert run.data.tags["search"] == "toy"
        assert run.data.metrics["pruned"] == (row.state == "PRUNED")
        assert run.data.metrics["dev/ndcg_at_10"] > 0


def test_mlflow_has_the_benchmark_and_the_report(logged: Logged) -> None:
    run = logged.runs["toy benchmark"]
    assert {"test/base/ndcg_at_10", "test/best/ndcg_at_10"} <= run.data.metrics.keys()
    assert list(logged.run.parent.parent.rglob("artifacts/report.html"))


def test_tensorboard_has_the_rungs_of_each_trial_and_the_benchmark(logged: Logged) -> None:
    for row in logged.rows:
        told = scalars(logged.run / "tune" / f"trial_{row.trial:04d}")
        steps = {step for step, _ in told["ray/tune/dev/ndcg_at_10"]}
        assert steps == set(range(1, row.rung + 1))
        assert told["ray/tune/pruned"][-1][1] == (row.state == "PRUNED")
    assert "test/best/ndcg_at_10" in scalars(logged.run / "tune" / "benchmark")


def test_weights_and_biases_has_one_group_with_a_run_for_each_trial_and_the_benchmark(logged: Logged) -> None:
    kept = {path: path.read_bytes() for path in logged.run.glob("wandb/offline-run-*/run-*.wandb")}
    assert len(kept) == len(logged.rows) + 1
    assert all(b"toy" in data for data in kept.values())
    for row in logged.rows:
        (data,) = [data for data in kept.values() if f"toy trial {row.trial:04d} ".encode() in data]
        assert b"dev/ndcg_at_10" in data
        assert row.state.encode() in data
    (benchmark,) = [data for data in kept.values() if b"toy benchmark" in data]
    assert b"report.html" in benchmark
