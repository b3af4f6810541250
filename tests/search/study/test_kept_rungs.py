"""Which rungs' weights a search keeps on disk: what can still be averaged, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.study.study import Study, Verdict
from tests.kit.toy_study import make_spec
from trainables.training.rungs import ADAPTER, LAST, WEIGHTS, Rung, adapters_of_last, complete_rung

METRIC = "ndcg@10"


def study_of(run: Path, *bases: str, **changes: Any) -> Study:
    """A search whose trials are on these bases."""
    space = {"base": sorted(set(bases)), "r": 8, "lr": {"low": 1e-4, "high": 1e-3, "log": True}, "rungs": 4}
    start = [{"base": base, "lr": 1e-4 + number * 1e-5} for number, base in enumerate(bases)]
    return Study(run, make_spec(**{"space": space, "start": start, "pruner": {"name": "none"}, **changes}))


def run_trial(study: Study, run: Path, scores: Sequence[float], file: str = ADAPTER) -> int:
    """A trial with these scores at its rungs, as the driver and the worker together run it."""
    proposal = study.next_trial()
    assert proposal is not None
    for rung, score in enumerate(scores, start=1):
        folder = RunFolder(run).trial(proposal.number) / f"checkpoint-{rung}"
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"weights")
        done = Rung(rung, 4, rung, 4, rung, 1.0, 1.0, 1.0, 1, 9, {METRIC: score}, {METRIC: 0.0}, str(folder))
        complete_rung(done, Scores(("q0", "q1"), ("g0", "g1"), {METRIC: np.full(2, score)}), METRIC)
        if study.report(proposal.number, rung, asdict(done)) is Verdict.STOP:
            break
    study.complete(proposal.number)
    return proposal.number


def kept(run: Path, trial: int, file: str = ADAPTER) -> list[int]:
    return sorted(
        int(path.parent.name.removeprefix("checkpoint-")) for path in RunFolder(run).trial(trial).glob(f"*/{file}")
    )


def test_the_best_trial_of_each_base_keeps_its_last_rungs_and_a_beaten_one_its_best(tmp_path: Path) -> None:
    study = study_of(tmp_path, "one/base", "one/base", "other/base", "one/base")
    first = run_trial(study, tmp_path, [0.5, 0.4, 0.4, 0.4])
    assert kept(tmp_path, first) == [1, 2, 3, 4]  # the best one and the last three
    better = run_trial(study, tmp_path, [0.4, 0.5, 0.6, 0.7])
    assert (kept(tmp_path, first), kept(tmp_path, better)) == ([1], [2, 3, 4])
    other = run_trial(study, tmp_path, [0.1, 0.1, 0.2, 0.3])
    worse = run_trial(study, tmp_path, [0.1, 0.6, 0.2, 0.3])
    assert [kept(tmp_path, trial) for trial in (better, other, worse)] == [[2, 3, 4], [2, 3, 4], [2]]
    assert [rung.rung for rung in adapters_of_last(RunFolder(tmp_path).trial(better))] == [2, 3, 4]


def test_a_trial_that_was_stopped_keeps_its_best_rung_alone(tmp_path: Path) -> None:
    study = study_of(tmp_path, "one/base", "one/base", pruner={"name": "halving"})
    run_trial(study, tmp_path, [0.5, 0.5, 0.5, 0.5])
    stopped = run_trial(study, tmp_path, [0.6, 0.1, 0.9, 0.9])
    assert study.trial(stopped).state.name == "PRUNED"
    assert kept(tmp_path, stopped) == [1]


@pytest.mark.parametrize("score", [0.5, 0.9])
def test_full_fine_tunings_keep_no_second_model(tmp_path: Path, score: float) -> None:
    study = study_of(tmp_path, "one/base")
    trial = run_trial(study, tmp_path, [0.6, 0.6, 0.6, score], WEIGHTS)
    # Without the worker, which tidies when it has ended, the latest stays: the trial might go on from it.
    assert kept(tmp_path, trial, WEIGHTS) == ([4] if score > 0.6 else [1, 4])
    assert adapters_of_last(RunFolder(tmp_path).trial(trial)) == []


def test_a_search_that_goes_on_frees_what_the_first_part_of_it_would_have(tmp_path: Path) -> None:
    first = run_trial(study_of(tmp_path, "one/base", "one/base"), tmp_path, [0.1, 0.2, 0.3, 0.4])
    assert len(kept(tmp_path, first)) == LAST
    run_trial(study_of(tmp_path, "one/base", "one/base"), tmp_path, [0.2, 0.3, 0.4, 0.5])
    assert kept(tmp_path, first) == [4]
