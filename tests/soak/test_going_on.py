"""What follows a killed search and an ended one: its rest, more trials, a search on new data from its best model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search import OpenRun, open_run, run_search
from tests.conftest import TinyBase
from tests.kit.command import EMBTUNE, embtune_here
from tests.kit.toy import DEMO, write_spec


@dataclass(frozen=True)
class Killed:
    """A search that was killed in its first trial, and what happened when it was called again.

    Attributes:
        trials: of its study then.
        refused: the answer to a call without --resume.
        run: as it went on to its end.
    """

    trials: list[FrozenTrial]
    refused: subprocess.CompletedProcess[str]
    run: OpenRun


def trials_of(run: Path) -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return optuna.load_study(study_name=None, storage=storage).trials


@pytest.fixture(scope="module")
def killed(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    run = folder / "runs" / "toy"
    spec = write_spec(folder, tiny_base("xlm-roberta"), budget={"trials": 2})
    command, quiet = [*EMBTUNE, "search", str(spec)], subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(run.glob("tune/trial_0000/checkpoint-*/rung.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    trials = trials_of(run)
    refused = embtune_here("search", spec, cwd=folder)
    return Killed(trials, refused, run_search(spec, folder / "runs", resume=True))


@pytest.fixture(scope="module")
def ended(killed: Killed) -> OpenRun:
    return killed.run


def test_a_killed_search_goes_on_and_every_trial_is_there_once(killed: Killed) -> None:
    assert [t.state for t in killed.trials] == [TrialState.RUNNING]
    assert killed.refused.returncode == 2
    assert "--resume" in killed.refused.stderr
    trials = trials_of(killed.run.folder.path)
    assert [t.number for t in trials] == [0, 1]
    (before,) = killed.trials
    assert before.params == trials[0].params
    assert before.intermediate_values.items() <= trials[0].intermediate_values.items()


def test_it_goes_on_to_more_trials_and_keeps_those_that_it_has(ended: OpenRun) -> None:
    folder, before = ended.folder.path.parents[1], ended.curves()
    spec = yaml.safe_load((folder / "toy.yaml").read_text()) | {"budget": {"trials": 3}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(spec))
    after = run_search(folder / "toy.yaml", folder / "runs", resume=True).curves()
    assert set(after["trial"]) == {0, 1, 2}
    assert after[after["trial"] < 2].equals(before)


def test_another_search_continues_from_it_and_checks_what_was_forgotten(ended: OpenRun) -> None:
    folder = ended.folder.path.parents[1]
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    known = {json.loads(line)["cluster_id"] for line in (folder / "pairs.jsonl").read_text().splitlines()}
    new = [row for row in rows if row["cluster_id"] not in known][:150]
    (folder / "new.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in new))
    spec = yaml.safe_load((folder / "toy.yaml").read_text())
    del spec["space"]["base"]
    spec |= {"name": "next", "data": {"source": "new.jsonl"}, "continue_from": "runs/toy", "budget": {"trials": 1}}
    (folder / "next.yaml").write_text(yaml.safe_dump(spec))
    finished = embtune_here("search", "next.yaml", cwd=folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "No-forgetting check" in finished.stdout
    assert "bases: embedded as plain float32 embeds them" in finished.stdout
    run = open_run(folder / "runs" / "next")
    parts = {part: (run.folder.data / f"{part}.jsonl").read_text() for part in ("train", "test", "old_test")}
    assert parts["old_test"] == (ended.folder.data / "test.jsonl").read_text()
    old_concepts = {json.loads(line)["concept"] for line in parts["old_test"].splitlines()}
    assert not old_concepts & {json.loads(line)["concept"] for line in parts["train"].splitlines()}
    assert run.leaderboard()["base"].iloc[0] == str(ended.folder.best)
    benchmark = json.loads(run.folder.benchmark.read_text())
    assert benchmark["old_test"]["concepts"] == len(old_concepts)
    # A second guard: every candidate answers to it, the picked one with what the benchmark then finds.
    assert all(candidate["old_loss"] for candidate in benchmark["candidates"])
    picked = next(c for c in benchmark["candidates"] if c["name"] == benchmark["best"]["candidate"])
    found = benchmark["old_test"]["comparisons"][benchmark["metric"]]
    assert picked["old_loss"]["difference"] == pytest.approx(found["difference"], abs=1e-6)
    assert picked["old_loss"]["queries"] == benchmark["old_test"]["queries"]
    assert "test of the run before" in (run.folder.best / "README.md").read_text()
