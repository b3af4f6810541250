"""What a search survives: killed workers, drivers and nodes, full disks, impatient users. Real signals on real Ray."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from optuna.trial import TrialState
from ray import tune

from search.spec.load import load_spec
from search.study.study import Study
from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.command import EMBTUNE
from tests.kit.drive import drive
from tests.kit.toy import new_run, write_spec
from trainables.training.rungs import rungs_done

REPOSITORY = Path(__file__).parents[2]
KILLS = 10


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray of this module's own."""
    connect(None)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def spec(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(
        tmp_path_factory.mktemp("spec"),
        tiny_base("bert"),
        budget={"trials": 5},
        sampler={"startup": 3},
        resources={"retries": 1},
        space={"dropout": 0.1, "rungs": 4},
    )


@pytest.fixture(scope="module")
def whole(address: str, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The uninterrupted search."""
    study = drive(spec, new_run(tmp_path_factory.mktemp("whole"), spec))
    assert len(study.trials) == 5
    return view(study)


def view(study: Study) -> list[Any]:
    return [(t.number, t.state.name, t.params, t.intermediate_values) for t in study.trials]


def assert_same(got: list[Any], expected: list[Any]) -> None:
    assert [row[:3] for row in got] == [row[:3] for row in expected]
    for a, b in zip(got, expected, strict=True):
        assert a[3] == pytest.approx(b[3], abs=1e-6)


def assert_journal_equals_what_trials_wrote(study: Study, run: Path) -> None:
    """Every rung in the study has its checkpoint, with its value, and the other way round."""
    for trial in study.trials:
        rungs = rungs_done(run / "tune" / f"trial_{trial.number:04d}")
        assert {rung.rung: rung.metrics["ndcg@10"] for rung in rungs} == trial.intermediate_values


def assert_journal_equals_tunes_view(study: Study, run: Path) -> None:
    """Every rung in the study was reported to Tune, with its value, and the other way round."""
    assert_journal_equals_what_trials_wrote(study, run)
    for trial in study.trials:
        log = run / "tune" / f"trial_{trial.number:04d}" / "result.json"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        told = {row["rung"]: row["ndcg_at_10"] for row in rows if row["rung"]}
        assert told == trial.intermediate_values


class KillWorker(tune.Callback):
    """Kills the worker of a trial when it reports a rung, so many times."""

    def __init__(self, times: dict[int, int], rung: int = 1) -> None:
        self.left, self._rung = times, rung
        self.pids: dict[int, list[int]] = {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        number = trial.config["number"]
        pids = self.pids.setdefault(number, [])
        if result["pid"] not in pids:
            pids.append(result["pid"])
        if self.left.get(number) and result["rung"] == self._rung:
            self.left[number] -= 1
            os.kill(result["pid"], signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_a_trial_that_always_fails_is_dropped(
    whole: list[Any], spec: Path, tmp_path: Path
) -> None:
    run = new_run(tmp_path, spec)
    kept, *_, dropped = [row[0] for row in whole if len(row[3]) > 1]  # not stopped at their first rung
    killer = KillWorker({kept: 1, dropped: 99})
    study = drive(spec, run, [killer])
    assert len(study.trials) == 5
    assert_same(view(study)[:dropped], whole[:dropped])
    assert len(killer.pids[kept]) == 2  # it went on in another process
    assert killer.left[dropped] == 97  # the first try and one more
    failed = study.trial(dropped)
    assert failed.state == TrialState.FAIL
    assert "error.txt" in failed.user_attrs["failure"]
    assert (run / "tune" / f"trial_{dropped:04d}" / "error.txt").exists()
    assert_journal_equals_tunes_view(study, run)


class FillDisk(tune.Callback):
    """Lets the worker write no file of more than a kilobyte from a trial's first rung on."""

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if trial.config["number"] == 1:
            resource.prlimit(result["pid"], resource.RLIMIT_FSIZE, (1024, 1024))


def test_a_full_disk_halts_the_search_which_can_be_resumed(whole: list[Any], spec: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path, spec)
    halted = drive(spec, run, [FillDisk()])
    assert "cannot be written (File too large)" in halted.halted
    assert halted.unfinished()
    assert [t.state.name for t in halted.trials] == [whole[0][1], "RUNNING"]
    resumed = drive(spec, run)
    assert_same(view(resumed), whole)
    assert_journal_equals_tunes_view(resumed, run)


def test_a_node_without_the_runs_folder_halts_the_search_and_costs_no_trial(spec: Path, tmp_path: Path) -> None:
    """As a worker finds it whose disk is not mounted: the driver has the study, the trial finds no data."""
    run = tmp_path / "run"
    run.mkdir()
    halted = drive(spec, run)
    assert f"{run / 'data'} is not there; expected the runs to be in a folder that every node mounts" in halted.halted
    assert [(t.state.name, t.intermediate_values) for t in halted.trials] == [("RUNNING", {})]
    new_run(run, spec)  # the disk is mounted
    resumed = drive(spec, run)
    assert [t.number for t in resumed.trials] == list(range(5))
    assert {t.state for t in resumed.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_driver_killed_ten_times_reaches_the_same_result(
    address: str, whole: list[Any], spec: Path, tmp_path: Path
) -> None:
    run = new_run(tmp_path, spec)
    journal = run / "study.journal"
    draw = random.Random(11)
    command = [sys.executable, "-m", "tests.kit.drive", str(spec), str(run), address]

    def progress() -> int:
        return journal.read_bytes().count(b'"rung_') if journal.exists() else 0

    kills = within = 0
    for life in range(KILLS):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = progress(), time.monotonic() + 90
        # Three lives end while the search starts, the others after a rung: within a trial, or on the way to the next.
        while life % 3 < 2 and progress() == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 4) if life % 3 == 2 else draw.uniform(0, 0.3))
        kills += process.poll() is None
        within += progress() > before
        process.kill()
        process.wait()
    assert kills >= KILLS - 1, "the search was over too soon to be killed so often"
    assert within >= KILLS // 2
    study = drive(spec, run)
    assert_same(view(study), whole)
    # Tune's own logs may lack the last report before a kill: the study has it first.
    assert_journal_equals_what_trials_wrote(study, run)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_cleanly_once_and_now_twice(spec: Path, tmp_path: Path, times: int) -> None:
    process = subprocess.Popen(
        [*EMBTUNE, "search", str(spec)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    journal = tmp_path / "runs" / "toy" / "study.journal"
    deadline = time.monotonic() + 240
    while not (journal.exists() and "intermediate_value" in journal.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)  # the entry is there once it is synced: a write that is interrupted before is taken back
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
        time.sleep(0.3)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    if times == 1:
        assert "To go on: " in output
        assert output.split("To go on: ")[1].split("\n")[0].endswith("--resume")
    assert "Traceback" not in output
    study = Study(journal.parent, load_spec(spec))
    assert not study.note
    assert study.trials[0].intermediate_values
