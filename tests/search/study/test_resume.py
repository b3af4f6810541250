"""The study as memory: proposals, verdicts, repeats, budget, and what a reopened study remembers."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from evaluation.errors import InputError
from search.results.leaderboard import leaderboard
from search.spec.load import SearchSpec
from search.study.budget import best_rung
from search.study.study import Study
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


def record(config: TrialConfig, rung: int) -> dict[str, Any]:
    return {
        "metrics": {"ndcg@10": score(config, rung)},
        "train_s": 90.0,
        "eval_s": 10.0,
        "trainable": 1000 * config.r,
        "errors": {"ndcg@10": 0.01},
        "folder": "none",
    }


def run_all(study: Study, stop_after: int | None = None) -> None:
    """Run trials one after the other until the budget ends, or leave the search after so many rungs."""
    told = 0
    while (proposal := study.next_trial()) is not None:
        known = len(study.trial(proposal.number).intermediate_values)
        for rung in range(known + 1, study.space.rungs + 1):
            if stop_after is not None and told == stop_after:
                return
            told += 1
            if study.report(proposal.number, rung, record(proposal.config, rung)):
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


def test_a_run_under_another_name_goes_on_with_its_study(tmp_path: Path) -> None:
    run_all(Study(tmp_path, make_spec()), stop_after=9)
    renamed = Study(tmp_path, make_spec(name="renamed"))
    run_all(renamed)
    (tmp_path / "whole").mkdir()
    whole = Study(tmp_path / "whole", make_spec())
    run_all(whole)
    assert view(renamed) == view(whole)


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


def work(folder: Path, spec: SearchSpec) -> None:
    study = Study(folder, spec)
    for _ in range(100):  # slow enough to be killed in the middle of it
        run_all(study, stop_after=1)
        time.sleep(0.002)
        if study.exhausted():
            return
        study = Study(folder, spec)


def test_a_search_killed_at_random_moments_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    spec = make_spec(start=[{"r": 8, "lr": 1e-4}])
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = Study(tmp_path / "whole", spec)
    run_all(whole)
    draw = random.Random(7)
    kills = 0
    while kills < 25:
        process = multiprocessing.get_context("fork").Process(target=work, args=(tmp_path / "parts", spec))
        process.start()
        process.join(draw.uniform(0.001, 0.08))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 5
    again = Study(tmp_path / "parts", spec)
    run_all(again)
    assert view(again) == view(whole)


def test_a_journal_cut_anywhere_loses_nothing_that_was_complete(tmp_path: Path) -> None:
    spec = make_spec(budget={"trials": 5}, start=[{"r": 8, "lr": 1e-4}])
    whole = Study(tmp_path, spec)
    run_all(whole)
    journal = (tmp_path / "study.journal").read_bytes()
    draw = random.Random(3)
    for i in range(40):
        folder = tmp_path / f"cut{i}"
        folder.mkdir()
        cut = draw.randrange(len(journal))
        (folder / "study.journal").write_bytes(journal[:cut])
        study = Study(folder, spec)
        if not journal[:cut].endswith(b"\n") and cut > 0:
            assert "cut short" in study.note
        for before, after in zip(view(study), view(whole), strict=False):
            assert before[2] == after[2]
            assert before[3].items() <= after[3].items()
        run_all(study)
        assert view(study) == view(whole)


def test_a_journal_damaged_in_the_middle_is_refused_by_line(tmp_path: Path) -> None:
    run_all(Study(tmp_path, make_spec(budget={"trials": 2})))
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][: len(lines[4]) // 2] + b"\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"study\.journal, line 5 of \d+: not JSON"):
        Study(tmp_path, make_spec())


def test_optuna_reads_the_journal_by_itself(tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = Study(tmp_path, make_spec())
    run_all(study)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    read = optuna.load_study(study_name="toy", storage=storage)
    assert [(t.number, t.state, t.params, t.values) for t in read.trials] == [
        (t.number, t.state, t.params, t.values) for t in study._study.trials
    ]


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


def test_a_reopened_search_knows_that_its_space_or_its_hours_are_used_up(tmp_path: Path) -> None:
    used_up = make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 1}, sampler={"name": "random"})
    short = make_spec(budget={"trials": 50, "hours": 1 / 3600}, pruner={"name": "none"})
    for name, spec, reason in (
        ("space", used_up, "known already or infeasible"),
        ("hours", short, "the budget of 0.000277778 h is spent"),
    ):
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name, spec)
        while (proposal := study.next_trial()) is not None:
            for rung in range(1, study.space.rungs + 1):
                study.report(proposal.number, rung, record(proposal.config, rung))
            study.complete(proposal.number)
            time.sleep(0.1)  # the last rung is told before the end
        again = Study(tmp_path / name, spec)
        assert reason in again.exhausted()
        assert again.next_trial() is None
        assert view(again) == view(study)
        assert len(again._study.trials) == len(study._study.trials)  # nothing was asked


def test_a_journal_that_does_not_say_why_its_search_ended_is_read_and_asked_once_more(tmp_path: Path) -> None:
    spec = make_spec(space={"base": "some/base", "r": [4, 8], "rungs": 1}, sampler={"name": "random"})
    study = Study(tmp_path, spec)
    run_all(study)
    journal = tmp_path / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "used_up" not in line))  # as earlier versions wrote it
    again = Study(tmp_path, spec)
    assert not again.exhausted()
    run_all(again)
    assert "known already or infeasible" in again.exhausted()
    assert view(again) == view(study)


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


def test_a_write_that_fails_leaves_whole_entries_and_ends_the_writing(tmp_path: Path) -> None:
    import resource

    study = Study(tmp_path, make_spec())
    run_all(study, stop_after=3)
    journal = tmp_path / "study.journal"
    size = journal.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200, hard))  # room for a part of what comes
    try:
        with pytest.raises(OSError, match="too large"):
            run_all(study)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(OSError, match="too large"):
        study.next_trial()
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    again = Study(tmp_path, make_spec())
    assert not again.note
    run_all(again)
    (tmp_path / "whole").mkdir()
    whole = Study(tmp_path / "whole", make_spec())
    run_all(whole)
    assert view(again) == view(whole)


def test_a_gaussian_process_goes_on_where_it_stopped(tmp_path: Path) -> None:
    spec = make_spec(sampler={"name": "gp", "startup": 3}, pruner={"name": "none"}, budget={"trials": 5})
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = Study(tmp_path / "whole", spec)
    run_all(whole)
    run_all(Study(tmp_path / "parts", spec), stop_after=17)
    again = Study(tmp_path / "parts", spec)
    run_all(again)
    assert view(again) == view(whole)
