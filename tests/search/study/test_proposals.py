"""What a study proposes: starting points, nothing twice, nothing that a constraint forbids."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.results.leaderboard import leaderboard
from search.study.study import Study
from tests.kit.toy_study import make_spec, record, run_all


def test_choices_may_be_texts_that_begin_as_lists_do(tmp_path: Path) -> None:
    prompts = ["[Q] ", '"query": ', "query: ", None]
    spec = make_spec(
        space={"base": "some/base", "query_prompt": prompts, "matryoshka": [[], [64, 128]], "rungs": 1},
        start=[{"query_prompt": '"query": ', "matryoshka": [64, 128]}, {"query_prompt": "[Q] "}],
        budget={"trials": 8},
    )
    run_all(Study(tmp_path, spec), stop_after=5)
    study = Study(tmp_path, spec)
    run_all(study)
    configs = [t.user_attrs["config"] for t in study.trials]
    assert (configs[0]["query_prompt"], configs[0]["matryoshka"]) == ('"query": ', [64, 128])
    assert configs[1]["query_prompt"] == "[Q] "
    assert {config["query_prompt"] for config in configs} == set(prompts)


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


def test_a_configuration_that_failed_is_not_run_again(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 2}, sampler={"name": "random"}))
    first = study.next_trial()
    assert first is not None
    study.fail(first.number, "it cannot be built")
    run_all(study)
    assert sorted(t.user_attrs["config"]["r"] for t in study.trials) == [4, 8]
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_equal_configurations_do_not_train_at_once(tmp_path: Path) -> None:
    spec = make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 1}, sampler={"name": "random"})
    study = Study(tmp_path, spec, concurrent=3)
    first, second = study.next_trial(), study.next_trial()
    assert first is not None
    assert second is not None
    assert first.config.r != second.config.r
    assert study.next_trial() is None  # both are taken,
    assert not study.exhausted()  # and what they teach may lead elsewhere
    asked = len(study._study.trials)
    assert study.next_trial() is None
    assert len(study._study.trials) == asked  # nothing is new: not asked again
    for proposal in (first, second):
        study.report(proposal.number, 1, record(proposal.config, 1))
        study.complete(proposal.number)
    assert study.next_trial() is None
    assert "known already" in study.exhausted()
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE"]
    assert {row.state for row in leaderboard(study.trials, "ndcg@10", 1)} == {"COMPLETE"}


def test_grid_proposes_every_point_once(tmp_path: Path) -> None:
    spec = make_spec(
        space={"base": "some/base", "r": [4, 8, 16], "targets": ["qv", "qkv"], "rungs": 1}, sampler={"name": "grid"}
    )
    study = Study(tmp_path, spec)
    run_all(study)
    points = [(t.user_attrs["config"]["r"], t.user_attrs["config"]["targets"]) for t in study.trials]
    assert sorted(points) == [(4, "qkv"), (4, "qv"), (8, "qkv"), (8, "qv"), (16, "qkv"), (16, "qv")]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_infeasible_combinations_are_told_and_cost_nothing(tmp_path: Path, sampler: str) -> None:
    spec = make_spec(
        space={"base": "some/base", "r": {"low": 4, "high": 64}, "batch_size": {"low": 8, "high": 64}, "rungs": 1},
        constraints=["r * batch_size <= 512"],
        sampler={"name": sampler, "startup": 4},
        budget={"trials": 8},
    )
    study = Study(tmp_path, spec)
    run_all(study)
    assert len(study.trials) == 8
    configs = [t.user_attrs["config"] for t in study.trials]
    assert all(c["r"] * c["batch_size"] <= 512 for c in configs)
    refused = [t for t in study._study.trials if "infeasible" in t.user_attrs]
    assert refused
    for trial in refused:
        assert trial.constraints == {"feasible": 1.0}
        assert trial.params["r"] * trial.params["batch_size"] > 512
        assert "r * batch_size <= 512 does not hold" in trial.user_attrs["infeasible"]


def test_a_space_without_new_points_ends_the_search(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 1}, sampler={"name": "random"}))
    run_all(study)
    assert len(study.trials) == 2
    assert "known already or infeasible" in study.exhausted()
