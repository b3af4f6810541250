"""How trials and searches end: pruned, kept at their best rung, failed, out of budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.results.leaderboard import leaderboard
from search.study.study import Study, Verdict
from tests.kit.toy_study import make_spec, record, run_all
from trainables.training.rungs import best_rung


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


def test_the_best_rung_is_kept_not_the_last(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(pruner={"name": "none"}))
    proposal = study.next_trial()
    assert proposal is not None
    for rung, value in enumerate([0.3, 0.7, 0.7, 0.5], start=1):
        assert study.report(proposal.number, rung, {"metrics": {"ndcg@10": value}}) is Verdict.GO_ON
    study.complete(proposal.number)
    assert best_rung(study.trial(proposal.number).intermediate_values) == (2, 0.7)
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


def test_device_hours_end_a_search_and_what_is_left_is_told(tmp_path: Path) -> None:
    spec = make_spec(budget={"trials": 50, "device_hours": 0.3}, resources={"cpus": 2}, pruner={"name": "none"})
    study = Study(tmp_path, spec)
    run_all(study)  # 4 rungs of 100 s on 2 cores: 0.222 device-hours a trial
    assert len(study.trials) == 2
    assert study.exhausted() == "the budget of 0.3 device-hours is spent"
    (tmp_path / "half").mkdir()
    half = Study(tmp_path / "half", make_spec(budget={"trials": 11}, pruner={"name": "none"}), concurrent=2)
    assert half.left() == "0 of 11 trials ended, 0 s"
    run_all(half, stop_after=18)  # 4 trials of 400 s and half a one: 200 s + 6 trials x 400 s on two slots
    assert half.left().startswith("4 of 11 trials ended")
    assert half.left().endswith("; about 22 min left")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_two_objectives_are_kept_apart(tmp_path: Path, sampler: str) -> None:
    spec = make_spec(minimize="trainable", pruner={"name": "none"}, sampler={"name": sampler, "startup": 4})
    study = Study(tmp_path, spec)
    run_all(study, stop_after=30)
    study = Study(tmp_path, spec)
    run_all(study)
    assert len(study.trials) == 12
    for trial in study.trials:
        assert trial.values == [max(trial.intermediate_values.values()), 1000 * trial.user_attrs["config"]["r"]]
    rows = leaderboard(study.trials, "ndcg@10", study.space.rungs)
    assert {row.trial for row in rows if row.front} == {t.number for t in study._study.best_trials}
    assert 0 < sum(row.front for row in rows) < len(rows)


def test_a_trial_that_is_put_back_is_proposed_again_before_all_others(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec())
    first, second = study.next_trial(), study.next_trial()
    assert first is not None
    assert second is not None
    study.report(first.number, 1, record(first.config, 1))
    study.put_back(first.number)
    assert study.next_trial() == first
    assert list(study.trial(first.number).intermediate_values) == [1]
    study.fail(second.number, "its loss is nan")
    study.put_back(second.number)  # it has ended: there is nothing to go on with
    third = study.next_trial()
    assert third is not None
    assert third.number == 2
