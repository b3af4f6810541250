"""The study as memory: proposals, verdicts, repeats, budget, and what a reopened study remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.spec import SearchSpec
from search.study import Study, best_rung
from trainables.config import TrialConfig


def make_spec(**changes: Any) -> SearchSpec:
    raw: dict[str, Any] = {
        "name": "toy",
        "data": {"source": "pairs.jsonl"},
        "space": {"base": "some/base", "r": [4, 8, 16, 32], "lr": {"low": 1e-5, "high": 1e-2, "log": True}, "rungs": 4},
        "budget": {"trials": 12},
        "sampler": {"startup": 4},
    }
    return SearchSpec.model_validate({**raw, **changes})


def score(config: TrialConfig, rung: int) -> float:
    """A toy objective: best at r 16 and lr 1e-3, growing with training."""
    import math

    return (0.9 - 0.1 * abs(math.log10(config.lr) + 3) - 0.01 * abs(config.r - 16)) * (0.6 + 0.1 * rung)


def run_all(study: Study, stop_after: int | None = None) -> None:
    """Run trials one after the other until the budget ends, or leave the search after so many rungs."""
    told = 0
    while (proposal := study.next_trial()) is not None:
        known = len(study.trial(proposal.number).intermediate_values)
        for rung in range(known + 1, study.rungs + 1):
            if stop_after is not None and told == stop_after:
                return
            told += 1
            if study.report(proposal.number, rung, {"metrics": {"ndcg@10": score(proposal.config, rung)}}):
                break
        study.complete(proposal.number)


def view(study: Study) -> list[Any]:
    return [(t.number, t.state.name, t.user_attrs["config"], t.intermediate_values, t.value) for t in study.trials]


def test_a_search_finishes_its_budget_and_prunes(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec())
    run_all(study)
    states = [t.state for t in study.trials]
    assert len(states) == 12
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert "12 trials" in study.exhausted()
    for trial in study.trials:
        if trial.state == TrialState.COMPLETE:
            assert set(trial.intermediate_values) == {1, 2, 3, 4}
            assert trial.value == max(trial.intermediate_values.values())
        else:
            assert 1 <= len(trial.intermediate_values) < 4


@pytest.mark.parametrize("rungs_before_the_stop", [0, 1, 2, 5, 11, 17, 23])
def test_a_stopped_and_reopened_search_equals_an_uninterrupted_one(tmp_path: Path, rungs_before_the_stop: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = Study(tmp_path / "whole", make_spec())
    run_all(whole)
    (tmp_path / "parts").mkdir()
    run_all(Study(tmp_path / "parts", make_spec()), stop_after=rungs_before_the_stop)
    again = Study(tmp_path / "parts", make_spec())
    run_all(again)
    assert view(again) == view(whole)


def test_starting_points_come_first_and_once(tmp_path: Path) -> None:
    spec = make_spec(start=[{"r": 8, "lr": 1e-4}, {"r": 4, "lr": 5e-5}])
    first = Study(tmp_path, spec)
    proposal = first.next_trial()
    assert proposal is not None
    assert (proposal.config.r, proposal.config.lr) == (8, 1e-4)
    first.report(proposal.number, 1, {"metrics": {"ndcg@10": 0.5}})
    study = Study(tmp_path, spec)
    run_all(study)
    assert [(t.params["r"], t.params["lr"]) for t in study.trials][:2] == [(8, 1e-4), (4, 5e-5)]
    assert [t.params["lr"] for t in study.trials].count(1e-4) == 1


def test_a_known_configuration_is_not_run_twice(tmp_path: Path) -> None:
    spec = make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 2}, sampler={"name": "random"})
    study = Study(tmp_path, spec)
    run_all(study)
    assert sorted(t.user_attrs["config"]["r"] for t in study.trials) == [4, 8]
    repeats = [t for t in study._study.trials if "repeats" in t.user_attrs]
    assert repeats
    for repeat in repeats:
        assert repeat.value == study.trial(repeat.user_attrs["repeats"]).value


def test_grid_proposes_every_point_once(tmp_path: Path) -> None:
    spec = make_spec(
        space={"base": "some/base", "r": [4, 8, 16], "targets": ["qv", "qkv"], "rungs": 1}, sampler={"name": "grid"}
    )
    study = Study(tmp_path, spec)
    run_all(study)
    points = [(t.user_attrs["config"]["r"], t.user_attrs["config"]["targets"]) for t in study.trials]
    assert sorted(points) == [(4, "qkv"), (4, "qv"), (8, "qkv"), (8, "qv"), (16, "qkv"), (16, "qv")]


def test_the_best_rung_is_kept_not_the_last(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(pruner={"name": "none"}))
    proposal = study.next_trial()
    assert proposal is not None
    for rung, value in enumerate([0.3, 0.7, 0.7, 0.5], start=1):
        assert not study.report(proposal.number, rung, {"metrics": {"ndcg@10": value}})
    study.complete(proposal.number)
    assert best_rung(study.trial(proposal.number)) == (2, 0.7)
    assert study.trial(proposal.number).value == 0.7


def test_a_failed_trial_says_why_and_the_search_goes_on(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(budget={"trials": 2}))
    first = study.next_trial()
    assert first is not None
    study.fail(first.number, "the loss is nan at step 3")
    assert study.trial(first.number).state == TrialState.FAIL
    assert study.trial(first.number).user_attrs["failure"] == "the loss is nan at step 3"
    assert study.next_trial() is not None


def test_target_and_patience_end_a_search(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    reached = Study(tmp_path / "a", make_spec(budget={"trials": 50, "target": 0.7}, pruner={"name": "none"}))
    run_all(reached)
    assert "target" in reached.exhausted()
    assert max(t.value or 0 for t in reached.trials) >= 0.7
    patient = Study(tmp_path / "b", make_spec(budget={"trials": 50, "patience": 3}, pruner={"name": "none"}))
    run_all(patient)
    assert "no better score in 3 trials" in patient.exhausted()
    values = [t.value or 0 for t in patient.trials]
    assert len(values) - 1 - values.index(max(values)) == 3
