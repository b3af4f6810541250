"""The live table: what is new is told once, and a search of many trials costs no more than what a terminal shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial
from rich.console import Console

from search.results.leaderboard import leaderboard
from search.screen import live
from search.screen.live import LiveTable
from search.study.study import Study
from tests.kit.toy_study import make_spec, record, run_all


def told(table: LiveTable, out: io.StringIO) -> list[str]:
    """What a step of Tune prints."""
    start = len(out.getvalue())
    table.on_step_end(0, [])
    return out.getvalue()[start:].splitlines()


def test_without_a_terminal_each_rung_is_one_line_and_told_once(tmp_path: Path) -> None:
    out, study = io.StringIO(), Study(tmp_path, make_spec(pruner={"name": "none"}))
    with LiveTable(study, Console(file=out, width=170)) as table:
        proposal = study.next_trial()
        assert proposal is not None
        assert told(table, out) == []
        study.report(0, 1, record(proposal.config, 1))
        (line,) = told(table, out)
        assert line.startswith("trial 0: rung 1/4, ndcg@10 ")
        assert told(table, out) == []
        study.fail(0, "its loss is nan")
        assert told(table, out)[0] == "trial 0: failed: its loss is nan"


def test_a_step_without_news_does_not_look_at_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, make_spec())
    with LiveTable(study, Console(file=io.StringIO())) as table:
        study.next_trial()
        table.on_step_end(0, [])
        monkeypatch.setattr(Study, "trials", property(lambda self: pytest.fail("looked again")))
        table.on_step_end(1, [])


def test_a_terminal_shows_the_trials_that_run_and_the_best_of_the_others(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(budget={"trials": 30}, sampler={"name": "random"}))
    run_all(study, stop_after=60)
    while study.next_trial() is not None:
        pass
    out = io.StringIO()
    with LiveTable(study, Console(file=out, force_terminal=True, width=120, height=20)) as table:
        table.on_step_end(0, [])
    rows, trials = leaderboard(study.trials, "ndcg@10", 4), study.trials
    running = sum(row.state == "RUNNING" for row in rows)
    shown = leaderboard(trials, "ndcg@10", 4, limit=20 - live.FRAME)
    assert len(shown) == 20 - live.FRAME
    assert [row for row in shown if row.state != "RUNNING"] == rows[: len(shown) - min(running, len(shown))]
    assert f"{len(rows) - len(shown)} lower rows not shown" in out.getvalue()


def test_a_drawing_makes_a_row_for_what_is_shown_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, make_spec(budget={"trials": 30}, sampler={"name": "random"}))
    run_all(study)
    made: list[int] = []
    row_of = leaderboard.__globals__["row_of"]

    def counted(trial: FrozenTrial, *arguments: object) -> object:
        made.append(trial.number)
        return row_of(trial, *arguments)

    monkeypatch.setitem(leaderboard.__globals__, "row_of", counted)
    assert len(leaderboard(study.trials, "ndcg@10", 4, limit=5)) == len(made) == 5
