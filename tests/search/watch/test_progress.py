"""How a search is told to those who look from outside, while it is at work and when it was stopped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from search.paths import RunFolder
from search.results.so_far import best_so_far, ranking
from search.spec.sections import ResourcesSpec
from search.staging import locked
from search.study.budget import devices
from search.watch.follow import is_at_work
from search.watch.names import short_config, trial_name
from search.watch.progress import Progress, table_text
from tests.kit.command import embtune_here
from tests.kit.toy_run import make_run
from trainables.config import TrialConfig


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trials are told in its study alone."""
    return make_run(tmp_path_factory.mktemp("stopped"), finished=False)


def test_a_trial_has_a_name_that_a_person_can_read() -> None:
    config = TrialConfig(base="intfloat/e5-base", targets="qkv", r=16, lr=2e-4).model_dump(mode="json")
    assert trial_name("demo", 7, config) == "demo trial 0007 e5-base qkv r16 lr 2e-4"
    full = TrialConfig(base="/models/mine/", method="full", lr=1e-5).model_dump(mode="json")
    assert short_config(full) == "mine full lr 1e-5"
    assert short_config({"base": "/mnt/runs/.bases/my-base-0123456789ab", "method": "none"}) == "my-base none"
    assert len(trial_name("s" * 200, 1, config)) == 100


def test_progress_counts_trials_and_says_what_pruning_saved(stopped: Path) -> None:
    rows = ranking(stopped).rows
    progress = Progress.of(rows, devices(ResourcesSpec(cpus=2, gpus=0)))
    assert progress.states == {"COMPLETE": progress.states["COMPLETE"], "PRUNED": progress.states["PRUNED"], "FAIL": 1}
    assert sum(progress.states.values()) == 8
    assert progress.best is not None
    assert progress.best.score == max(row.score for row in rows if row.score is not None and row.state == "COMPLETE")
    assert progress.rungs[1][0] == 7, "all but the failed one reached the first rung"
    assert progress.spent == pytest.approx(2 * sum(row.seconds for row in rows) / 3600)
    # Each rung takes 2 s here, so what a pruned trial did not take is 2 s for each rung that it did not reach.
    left_out = sum(row.rungs - row.rung for row in rows if row.state == "PRUNED")
    assert left_out > 0
    assert progress.saved == pytest.approx(2 * 2 * left_out / 3600)
    told = progress.told("ndcg@10", 8)
    assert told["trials"].startswith("8 of 8 ended: ")
    assert re.fullmatch(r"ndcg@10 0\.\d{4}, trial \d, rung \d", told["best"])


def test_a_search_without_a_trial_is_told_too() -> None:
    assert Progress.of([], 1).told("ndcg@10", 5)["trials"] == "0 of 5 ended"


def test_the_leaderboard_of_a_search_that_has_not_ended_is_marked(stopped: Path) -> None:
    shown = embtune_here("leaderboard", stopped, cwd=stopped)
    assert shown.returncode == 0, shown.stderr
    assert "toy (so far)" in shown.stdout
    document = json.loads(embtune_here("leaderboard", stopped, "--json", cwd=stopped).stdout)
    assert document["so_far"] is True
    assert len(document["rows"]) == 8
    assert table_text(ranking(stopped).rows, "ndcg@10").count("COMPLETE") == len(
        [row for row in ranking(stopped).rows if row.state == "COMPLETE"]
    )


def test_the_best_complete_trial_so_far_is_what_is_exported(stopped: Path) -> None:
    complete = [row for row in ranking(stopped).rows if row.state == "COMPLETE"]
    assert best_so_far(stopped) == complete[0].trial


def test_the_export_of_a_search_without_a_complete_trial_says_which_have_weights(stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "young"
    shutil.copytree(stopped, run)
    lines = RunFolder(run).journal.read_text().splitlines()
    told = next(at for at, line in enumerate(lines) if '"rung_2"' in line)
    RunFolder(run).journal.write_text("\n".join(lines[:told]) + "\n")
    refused = embtune_here("export", run, tmp_path / "model", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no trial is complete; expected --trial with one that has come to a rung (0)" in refused.stderr


def test_a_run_is_watched_until_nobody_is_at_work_in_it(stopped: Path) -> None:
    assert not is_at_work(stopped)
    with locked(stopped):
        assert is_at_work(stopped)
    watched = embtune_here("watch", stopped, cwd=stopped)
    assert watched.returncode == 0, watched.stderr
    assert "toy (so far)" in watched.stdout
    assert "device-hours:" in watched.stdout
    none = embtune_here("watch", stopped.parent, cwd=stopped)
    assert (none.returncode, none.stderr.count("\n")) == (2, 1)
