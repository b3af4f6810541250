"""The study as memory: stopped, killed, cut or damaged anywhere, it goes on as if undisturbed."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path

import pytest

from evaluation.errors import InputError
from search.spec.sections import SearchSpec
from search.study.study import Study
from tests.kit.toy_study import make_spec, record, run_all, view


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


def test_a_run_under_another_name_goes_on_with_its_study(tmp_path: Path) -> None:
    run_all(Study(tmp_path, make_spec()), stop_after=9)
    renamed = Study(tmp_path, make_spec(name="renamed"))
    run_all(renamed)
    (tmp_path / "whole").mkdir()
    whole = Study(tmp_path / "whole", make_spec())
    run_all(whole)
    assert view(renamed) == view(whole)


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
