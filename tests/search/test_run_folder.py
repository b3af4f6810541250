"""A run's folder: what may change on a resume, what a repetition says, when an earlier run is set aside."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evaluation.errors import InputError
from search.results.leaderboard import leaderboard, write_leaderboard
from search.spec.load import load_spec
from search.spec.record import SPEC, read_record
from search.staging import Staging, check_same_search
from search.study.study import Study
from tests.conftest import TinyBase
from tests.kit.toy import write_pairs, write_spec


@pytest.fixture
def run(tiny_base: TinyBase, tmp_path: Path) -> Path:
    """A prepared run that has not trained anything."""
    staged(write_spec(tmp_path, tiny_base("bert")), tmp_path / "runs" / "toy")
    return tmp_path / "runs" / "toy"


def staged(path: Path, run: Path, resume: bool = False) -> str:
    """Prepare a run's folder; returns what was printed."""
    console = Console(file=io.StringIO(), width=200)
    run.parent.mkdir(exist_ok=True)
    with Staging(load_spec(path), run, resume) as staging:
        staging.prepare(console)
        staging.settle(console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"trials": 9}}, ""),
        ({"resources": {"cpus": 2, "concurrent": 2}}, ""),
        ({"resources": {"workers": 2}}, "resources.workers was 1 and is now 2"),
        (
            {"resources": {"gpus": 0.5}},
            "resources.gpus was 0 and is now 0.5; expected trials on the",
        ),
        ({"seed": 1}, "seed was 42 and is now 1"),
        ({"space": {"r": [2, 8]}}, "space.r was [2, 4] and is now [2, 8]"),
        ({"pruner": {"name": "none"}}, "pruner.name was 'halving' and is now 'none'"),
    ],
)
def test_more_of_the_same_goes_on_and_another_search_is_refused(
    run: Path, tiny_base: TinyBase, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    changed = load_spec(write_spec(tmp_path, tiny_base("bert"), **change))
    if not message:
        check_same_search(changed, read_record(run), run)
        return
    with pytest.raises(InputError) as caught:
        check_same_search(changed, read_record(run), run)
    assert message in str(caught.value)


def test_repeating_a_run_says_what_is_not_as_it_was(run: Path, tmp_path: Path) -> None:
    assert "not as in" not in staged(run / SPEC, tmp_path / "again" / "toy")
    write_pairs(tmp_path / "pairs.jsonl", concepts=61)
    document = read_record(run)
    document["record"]["versions"]["ray"] = "1.0"
    (run / SPEC).write_text(json.dumps(document))
    told = staged(run / SPEC, tmp_path / "other" / "toy")
    assert "not as in the recorded run: the data\n" in told
    assert "not as in the recorded run: ray was 1.0, is " in told


def test_a_search_of_failures_alone_is_set_aside_and_another_that_stopped_is_not(run: Path, tmp_path: Path) -> None:
    study = Study(run, load_spec(tmp_path / "toy.yaml"))
    proposal = study.next_trial()
    assert proposal is not None
    with pytest.raises(InputError, match="has not ended; expected --resume"):
        staged(tmp_path / "toy.yaml", run)
    study.fail(proposal.number, "it cannot be built")
    write_leaderboard(leaderboard(study.trials, study.spec.metric, study.space.rungs), study.spec.metric, run)
    assert "The earlier run was kept" in staged(tmp_path / "toy.yaml", run)
