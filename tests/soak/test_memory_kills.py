"""Ray's memory guard kills workers for real: another program fills the machine while they train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from optuna.trial import TrialState
from ray import tune

from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.drive import drive
from tests.kit.ray_internals import fullness
from tests.kit.toy import new_run, write_spec
from tests.soak.test_faults import assert_journal_equals_tunes_view

ROOM_GIB = 8  # until the guard ends a worker: more than the tests beside this one take meanwhile
AT_MOST_GIB = 16


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray whose guard kills when this machine's memory is ROOM_GIB fuller than now."""
    full = fullness(ROOM_GIB * 2**30)
    if full > 0.9:
        pytest.skip(f"the memory of this machine is too full: {full:.0%}")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{full:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    connect(None)
    yield
    ray.shutdown()


class FillMemory(tune.Callback):
    """Fills the machine at a trial's first rung until the guard has killed its worker, so many times."""

    def __init__(self, times: dict[int, int]) -> None:
        self.left = times
        self.killed: list[int] = []

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if self.left.get(number := trial.config["number"]):
            self.left[number] -= 1
            held: list[bytes] = []
            while psutil.pid_exists(result["pid"]) and len(held) < 4 * AT_MOST_GIB:
                held.append(b"\1" * 2**28)
                time.sleep(0.1)  # the guard looks ten times a second

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.killed.append(trial.config["number"])


def test_the_guard_costs_a_trial_one_try_and_then_its_batch_in_pieces(
    guarded: None, tiny_base: TinyBase, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 2}, pruner={"name": "none"})
    run = new_run(tmp_path / "run", spec)
    filler = FillMemory({0: 1, 1: 2})
    study = drive(spec, run, [filler])
    assert filler.killed == [0, 1, 1]
    retried, failed = study.trials
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert retried.user_attrs["rung_3"]["micro_batch_tokens"] == 64
    assert "out of memory, with micro-batches of 64 tokens too" in failed.user_attrs["failure"]
    assert "micro_batch_tokens" not in retried.user_attrs["rung_1"]
    assert_journal_equals_tunes_view(study, run)
