"""Ties on dev and the choice among them, on real per-query scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.compare import compare
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.results.choice import choose, mark_tied, stage
from search.results.leaderboard import Row, read_leaderboard, write_leaderboard
from search.results.table import as_csv, as_table
from tests.kit.toy_run import METRIC, make_run
from trainables.training.rungs import SCORES

QUERIES = 200


def row(trial: int, score: float, rank: int, *, state: str = "COMPLETE", trainable: int = 100, steps: int = 8) -> Row:
    return Row(
        rank=rank,
        trial=trial,
        state=state,
        score=score,
        error=0.01,
        rung=4,
        best_rung=4,
        rungs=4,
        trainable=trainable,
        pairs=32,
        planned_pairs=32,
        seconds=1.0,
        checkpoint=f"/elsewhere/tune/trial_{trial:04d}/checkpoint-8",
        failure="",
        config={"base": "b", "lr": 1e-3},
        metrics={METRIC: score},
        steps=steps,
        total=1_000,
    )


def save_scores(run: Path, row: Row, values_Q: np.ndarray, per_group: int = 2) -> None:
    ids = tuple(f"q{i}" for i in range(len(values_Q)))
    groups = tuple(f"g{i // per_group}" for i in range(len(values_Q)))
    folder = RunFolder(run).checkpoint(row.trial, row.checkpoint)
    Scores(ids, groups, {METRIC: values_Q.astype(np.float64)}).save(folder / SCORES)


@pytest.fixture
def noisy(tmp_path: Path) -> tuple[Path, list[Row]]:
    """Trials 0 and 1 differ by chance alone, trial 2 is worse on every query by a little, trial 3 was pruned."""
    draw = np.random.default_rng(7)
    hard_Q = draw.random(QUERIES)
    values = {
        0: hard_Q + 0.1 * draw.standard_normal(QUERIES),
        1: hard_Q + 0.1 * draw.standard_normal(QUERIES),
        2: hard_Q - 0.05 + 0.1 * draw.standard_normal(QUERIES),
        3: hard_Q + 0.1 * draw.standard_normal(QUERIES) - 0.005,
    }
    order = sorted((0, 1, 2), key=lambda trial: -values[trial].mean())
    rows = [row(trial, float(values[trial].mean()), rank) for rank, trial in enumerate(order, 1)]
    rows.append(row(3, float(values[3].mean()), 4, state="PRUNED"))
    for one in rows:
        save_scores(tmp_path, one, values[one.trial])
    return tmp_path, rows


def test_a_tie_is_told_from_a_small_but_steady_difference(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    marked = {r.trial: r.tied for r in mark_tied(rows, run, METRIC)}
    assert marked == {0: True, 1: True, 2: False, 3: True}
    # Unpaired, trial 2 could not be told from the others: the intervals of the two means overlap.
    scores = {r.trial: Scores.load(RunFolder(run).checkpoint(r.trial, r.checkpoint) / SCORES) for r in rows}
    errors = [scores[trial].standard_error(METRIC) for trial in (rows[0].trial, 2)]
    assert rows[0].metrics[METRIC] - rows[2].metrics[METRIC] < 1.96 * math.hypot(*errors)
    full = compare(scores[rows[0].trial], scores[2], METRIC)
    assert full.high < 0


def test_of_the_tied_of_one_base_the_best_on_dev_is_kept_whatever_was_trained(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    first, second, worse, pruned = mark_tied(rows, run, METRIC)
    kept = choose([first, replace(second, trainable=1, total=1_001, steps=1), replace(worse, total=2), pruned])
    assert kept is not None
    assert kept.row.trial == first.trial
    assert f"Complete trials {first.trial} and {second.trial} are tied" in kept.reason
    assert "none of them is cheaper to run" in kept.reason


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"total": 600}, "a base of 500 parameters"),
        ({"config": {"base": "b", "max_length": 64}}, "texts of 64 tokens"),
        ({"config": {"base": "b", "max_length": 128, "matryoshka": [64, 32]}}, "embeddings of 32 dimensions"),
    ],
    ids=["smaller base", "shorter texts", "fewer dimensions"],
)
def test_of_the_tied_the_cheapest_to_run_is_kept(
    noisy: tuple[Path, list[Row]], changes: dict[str, Any], told: str
) -> None:
    run, rows = noisy
    long = {"base": "b", "max_length": 128}
    marked = [replace(r, config=long) for r in mark_tied(rows, run, METRIC)]
    first, second, worse, pruned = marked
    cheap = [replace(first), replace(second, **changes), replace(worse, **changes), replace(pruned, **changes)]
    choice = choose(cheap)
    assert choice is not None
    assert choice.row.trial == second.trial  # neither the trial that is not tied nor the one without a whole training
    assert told in choice.reason
    assert f"rather than trial {first.trial}" in choice.reason


def test_a_smaller_base_counts_before_shorter_texts_and_an_adapter_not_at_all(noisy: tuple[Path, list[Row]]) -> None:
    first, second, *_ = mark_tied(noisy[1], noisy[0], METRIC)
    short = {"base": "a", "max_length": 16}
    choice = choose([replace(first, total=900, trainable=100), replace(second, total=950, config=short)])
    assert choice is not None
    assert choice.row.trial == first.trial
    full = {"base": "b", "method": "full"}  # the same base, all of it trained
    choice = choose([replace(first, total=900, trainable=100), replace(second, total=800, trainable=800, config=full)])
    assert choice is not None
    assert choice.row.trial == first.trial


def test_without_ties_the_best_is_kept_and_without_complete_trials_none(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    alone = choose(mark_tied([rows[0], rows[2]], run, METRIC))
    assert alone is not None
    assert alone.row.trial == rows[0].trial
    assert "no other complete trial is tied" in alone.reason
    assert choose(mark_tied([rows[3]], run, METRIC)) is None
    assert choose([]) is None
    assert mark_tied([], run, METRIC) == []


def test_one_concept_tells_nothing_apart(tmp_path: Path) -> None:
    rows = [row(0, 0.9, 1), row(1, 0.1, 2)]
    for one in rows:
        save_scores(tmp_path, one, np.full(6, one.metrics[METRIC]), per_group=6)
    assert [r.tied for r in mark_tied(rows, tmp_path, METRIC)] == [True, True]


def test_scores_that_are_gone_are_named(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    (RunFolder(run).checkpoint(rows[1].trial, rows[1].checkpoint) / SCORES).unlink()
    with pytest.raises(InputError, match=f"expected the dev scores of trial {rows[1].trial}"):
        mark_tied(rows, run, METRIC)


def test_the_mark_is_in_the_table_the_json_and_the_csv(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    marked = mark_tied(rows, run, METRIC)
    write_leaderboard(marked, METRIC, run)
    assert [r.tied for r in read_leaderboard(run)[1]] == [r.tied for r in marked]
    header, *lines = as_csv(marked).splitlines()
    place = header.split(",").index("tied")
    assert [line.split(",")[place] for line in lines] == [str(r.tied) for r in marked]
    table = as_table(marked, METRIC)
    cells = list(table.columns[-2].cells)
    assert [str(cell).startswith("= ") for cell in cells] == [r.tied for r in marked]
    assert "tied with the best" in str(table.caption)


def test_a_leaderboard_written_before_ties_were_marked_still_reads(noisy: tuple[Path, list[Row]]) -> None:
    run, rows = noisy
    write_leaderboard(rows, METRIC, run)
    path = run / "leaderboard.json"
    document = json.loads(path.read_text())
    for one in document["rows"]:
        del one["tied"], one["steps"], one["total"]
    path.write_text(json.dumps(document))
    assert not any(r.tied for r in read_leaderboard(run)[1])


def test_weights_of_an_earlier_rung_are_told(noisy: tuple[Path, list[Row]]) -> None:
    whole = replace(noisy[1][0], state="COMPLETE", rung=4, best_rung=4, rungs=4)
    assert stage(whole) == ""
    assert "rung 2 of 4, which scored best on dev." in stage(replace(whole, best_rung=2))
    assert stage(replace(whole, state="PRUNED", rung=3, best_rung=2)).endswith("the pruner stopped it at rung 3.")


def test_the_trials_of_a_search_are_marked(tmp_path: Path) -> None:
    _, rows = read_leaderboard(make_run(tmp_path))
    assert rows[0].tied
    assert not all(r.tied for r in rows if r.state in ("COMPLETE", "PRUNED"))
    assert not any(r.tied for r in rows if r.state == "FAIL")
    assert rows[0].steps == 6
