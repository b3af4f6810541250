"""A run's folder as data frames, on a toy run; tests/search/test_search.py opens one of a real search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from evaluation.errors import InputError
from search import OpenRun, open_run, run_search
from search.results.benchmark import Benchmark
from search.spec.load import load_spec
from search.study.study import Study
from tests.kit.toy_run import make_run
from trainables.data.prepared import load_task


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    return open_run(make_run(tmp_path_factory.mktemp("ended")))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    """All trials, and nothing after them."""
    return open_run(make_run(tmp_path_factory.mktemp("stopped"), finished=False))


def rows_in_the_file(run: OpenRun) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(run.folder.leaderboard.read_text())["rows"]
    return rows


def test_the_leaderboard_is_the_files_best_first_and_typed(ended: OpenRun) -> None:
    frame = ended.leaderboard()
    assert list(frame.index) == [row["trial"] for row in rows_in_the_file(ended)]
    assert list(frame["rank"][frame["rank"] > 0]) == list(range(1, 8))
    complete = frame[frame["state"] == "COMPLETE"]
    assert complete["score"].is_monotonic_decreasing
    assert list(frame["tied"]) == [row["tied"] for row in rows_in_the_file(ended)]
    types = {"state": "category", "score": "float64", "error": "float64", "second": "float64", "trainable": "Int64"}
    types |= {"rank": "int64", "rung": "int64", "tied": "bool", "seconds": "float64", "lr": "float64", "r": "int64"}
    assert {name: str(frame[name].dtype) for name in types} == types
    assert frame["ndcg@10"].dropna().equals(frame["score"].dropna())


def test_a_failed_trial_has_no_score_and_says_why(ended: OpenRun) -> None:
    frame = ended.leaderboard()
    (failed,) = frame.index[frame["state"] == "FAIL"]
    assert failed == 5
    assert pd.isna(frame.loc[failed, "score"])
    assert "the loss is nan" in str(frame.loc[failed, "failure"])


def test_the_curves_have_every_rung_and_their_best_is_the_leaderboards(ended: OpenRun) -> None:
    curves, frame = ended.curves(), ended.leaderboard()
    assert [str(kind) for kind in curves.dtypes] == ["int64", "int64", "float64", "float64"]
    reached = curves.groupby("trial")["rung"].max()
    best = curves.groupby("trial")["score"].max()
    scored = frame[frame["rung"] > 0].sort_index()
    assert list(reached) == list(scored["rung"])
    assert list(best) == list(scored["score"])


def test_the_benchmark_has_a_row_for_each_protocol_and_metric_with_its_interval(ended: OpenRun) -> None:
    frame = ended.benchmark().set_index(["protocol", "metric"])
    file = Benchmark.read(ended.folder.benchmark)
    assert set(frame.index) == {(p, m) for p, part in file.protocols.items() for m in part.comparisons}
    row = frame.to_dict("index")["concept", "ndcg@10"]
    told = file.protocols["concept"].comparisons["ndcg@10"]
    assert (row["base"], row["best"], row["p_value"]) == (told.base, told.other, told.p_value)
    assert row["low"] <= row["difference"] <= row["high"]
    assert (frame["p_holm"] >= frame["p_value"]).all()
    assert frame["p_holm"].max() <= 1
    assert str(frame["queries"].dtype) == "int64"


def test_a_benchmark_without_a_protocol_is_a_table_without_rows(ended: OpenRun, tmp_path: Path) -> None:
    replace(Benchmark.read(ended.folder.benchmark), protocols={}).write(tmp_path / "benchmark.json")
    frame = OpenRun(tmp_path).benchmark()
    assert list(frame.columns) == list(ended.benchmark().columns)
    assert len(frame) == 0


def test_the_movers_are_all_test_queries_and_their_mean_change_is_the_benchmarks(ended: OpenRun) -> None:
    movers = ended.movers()
    task = load_task(ended.folder.data, "test", "concept")
    assert sorted(movers["query"]) == sorted(task.queries.values())
    assert movers["change"].is_monotonic_decreasing
    told = Benchmark.read(ended.folder.benchmark).protocols["concept"].comparisons["ndcg@10"]
    assert movers["change"].mean() == pytest.approx(told.difference)
    assert set(movers["first_before"]) | set(movers["first_after"]) <= set(task.corpus.values())
    assert movers["relevant"].min() >= 1


def test_the_report_is_written(ended: OpenRun) -> None:
    assert ended.report() == ended.folder.report
    assert "<html" in ended.folder.report.read_text(encoding="utf-8")


def test_a_run_that_has_not_ended_shows_its_trials_and_says_what_it_has_not(stopped: OpenRun) -> None:
    assert len(stopped.leaderboard()) == 8
    assert not stopped.curves().empty
    for door, missing in ((stopped.benchmark, "benchmark.json"), (stopped.movers, "benchmark.json")):
        with pytest.raises(InputError, match=f"toy: no {missing} yet; expected a search that has ended"):
            door()
    with pytest.raises(InputError, match=r"toy: no best/ yet; .*--resume"):
        stopped.model()


def test_a_run_without_a_trial_yet_has_tables_without_rows(stopped: OpenRun, tmp_path: Path) -> None:
    run = tmp_path / "young"
    run.mkdir()
    (run / "data").symlink_to(stopped.folder.data)
    (run / "spec.json").write_bytes(stopped.folder.spec.read_bytes())
    Study(run, load_spec(stopped.folder.path.parents[1] / "toy.yaml"))
    young = open_run(run)
    assert len(young.leaderboard()) == len(young.curves()) == 0
    whole = stopped.leaderboard()
    assert {"rank", "state", "score", "failure"} <= set(young.leaderboard().columns) <= set(whole.columns)
    assert list(young.curves().dtypes) == list(stopped.curves().dtypes)
    assert young.leaderboard()["state"].dtype == whole["state"].dtype


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no spec\.json; expected the folder of a search"):
        open_run(tmp_path)
    with pytest.raises(InputError, match="nowhere: no spec"):
        open_run(tmp_path / "nowhere")


def test_a_wrong_dictionary_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong = {"name": "mine", "data": {"source": "pairs.jsonl"}, "space": {"base": "some/base", "rr": [4, 8]}}
    with pytest.raises(InputError, match="rr"):
        run_search(wrong, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
