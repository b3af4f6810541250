"""Candidates of a run of tiny models: made, compared, picked and exported to best/."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer

from evaluation.retrieval import evaluate
from evaluation.task import RetrievalTask
from search.paths import RunFolder
from search.results.benchmark import Share
from search.results.candidates import (
    MEMBERS,
    STRENGTHS,
    compare_candidates,
    greedy_soup,
    groups_of,
    mix_of_candidate,
    suffixes,
)
from search.results.card import candidate_facts
from search.results.leaderboard import Row, read_leaderboard
from search.results.pick import winner
from search.results.promote import finish
from search.run import say_verdict
from search.screen.summary import guarded
from search.spec.load import load_spec
from tests.kit.ended_run import LAST, METRIC, benchmark_of
from tests.kit.toy import write_spec
from trainables.config import TrialConfig
from trainables.data.prepared import load_dev
from trainables.export.card import model_card
from trainables.export.manifest import verify
from trainables.export.mix import Mix, mixed_model
from trainables.training.rungs import ADAPTER, WEIGHTS

pytestmark = pytest.mark.usefixtures("reload_here")


def test_the_best_single_comes_first_and_each_kind_is_there(ended: Path) -> None:
    benchmark = benchmark_of(ended)
    single, *others = benchmark.candidates
    assert single.dev_gain is None
    assert all(c.dev_gain is not None and c.guard_gain is not None for c in others)
    names = {c.name.partition("@")[0] for c in benchmark.candidates}
    assert single.name in names
    assert any(name.startswith("trial-3:") for name in names), "the other base's best"
    assert {"greedy-soup", "uniform-soup"} & names
    assert 4 not in {share.trial for c in benchmark.candidates for share in c.members}, "it is not tied"
    assert "last-rungs" in names
    assert {c.strength for c in benchmark.candidates} == {1.0, *STRENGTHS}
    assert all(sum(share.weight for share in c.members) == pytest.approx(1) for c in benchmark.candidates)


def test_a_soup_holds_the_single_and_does_not_fall_on_dev(ended: Path) -> None:
    benchmark = benchmark_of(ended)
    single = benchmark.candidates[0]
    soups = [c for c in benchmark.candidates if c.name == "greedy-soup"]
    assert all(c.dev >= single.dev and c.members[0].trial == single.members[0].trial for c in soups)
    uniform = [c for c in benchmark.candidates if c.name == "uniform-soup"]
    assert all({share.trial for share in c.members} == {0, 1, 2} for c in uniform)
    assert soups or uniform


def test_the_last_rungs_of_the_best_trial_are_averaged(ended: Path) -> None:
    folder, benchmark = RunFolder(ended), benchmark_of(ended)
    rungs = benchmark.candidate("last-rungs")
    (trial,) = rungs.trials
    assert trial == benchmark.candidates[0].members[0].trial
    assert [(share.checkpoint, share.weight) for share in rungs.members] == [
        ("checkpoint-12", 0.5),
        ("checkpoint-8", 0.5),
    ]
    _, rows = read_leaderboard(ended)
    mixed = dict(mixed_model(mix_of_candidate(folder, rows, rungs), "cpu").named_parameters())
    config = TrialConfig.model_validate(next(row.config for row in rows if row.trial == trial))
    halves = [
        dict(mixed_model(Mix.of(config, folder.trial(trial) / share.checkpoint), "cpu").named_parameters())
        for share in rungs.members
    ]
    for name, weight in mixed.items():
        assert torch.allclose(weight, (halves[0][name] + halves[1][name]) / 2, atol=1e-6), name
    card = model_card(mix_of_candidate(folder, rows, rungs), candidate_facts(folder, "toy", rows, rungs, METRIC))
    assert f"The last 2 rungs of trial {trial} of the search toy, averaged in float32." in card
    assert "weights checkpoint-8" in card
    assert "The merged weights of these rungs were averaged." in card


def test_scores_are_those_of_the_merged_model_in_float32(ended: Path) -> None:
    folder = RunFolder(ended)
    _, rows = read_leaderboard(ended)
    guard = RetrievalTask.load_beir(folder.guard)
    for candidate in benchmark_of(ended).candidates:
        model = mixed_model(mix_of_candidate(folder, rows, candidate), "cpu")
        assert evaluate(model, load_dev(folder.data), (METRIC,)).means[METRIC] == pytest.approx(candidate.dev, abs=1e-9)
        assert evaluate(model, guard, (METRIC,)).means[METRIC] == pytest.approx(candidate.guard, abs=1e-9)
        assert candidate.lost == pytest.approx(candidate.loss.base - candidate.guard)


def test_best_is_the_picked_candidate_and_its_card_tells_of_the_guard(ended: Path) -> None:
    folder, benchmark = RunFolder(ended), benchmark_of(ended)
    picked = benchmark.candidate(benchmark.best.candidate)
    verify(folder.best)
    exported = SentenceTransformer(str(folder.best), device="cpu")
    mixed = mixed_model(mix_of_candidate(folder, read_leaderboard(ended)[1], picked), "cpu")
    assert np.allclose(exported.encode_query("DGFiP"), mixed.encode_query("DGFiP"), atol=1e-5)
    record = json.loads((folder.best / "embtune.json").read_text())
    assert record["candidate"] == picked.name
    card = (folder.best / "README.md").read_text()
    assert benchmark.guard is not None
    assert benchmark.guard.reason in card
    assert benchmark.optimism is not None
    best, base = benchmark.optimism.best.dev, benchmark.optimism.base.dev
    assert f"| {METRIC} | {base:.4f} | {best:.4f} | {best - base:+.4f} |" in card
    assert f"the lowest cosine is {benchmark.best.reload_cosine:.6f}, expected at least 0.9999." in card
    assert (
        f"| guard | {benchmark.guard.part.queries} | {METRIC} | {picked.loss.base:.4f} | {picked.guard:.4f} |" in card
    )
    assert f"from {picked.loss.base:.4f} to {picked.guard:.4f}" in guarded(benchmark)


def test_what_no_strength_can_keep_is_said_in_the_card(run: Path) -> None:
    """With a tolerance just below what the candidate loses that loses least."""
    folder, before = RunFolder(run), benchmark_of(run)
    won = winner(before.candidates)
    tolerance = min(c.lost for c in before.candidates) - 1e-6
    _, rows = read_leaderboard(run)
    best = next(row for row in rows if row.trial == before.candidates[0].members[0].trial)
    benchmark = finish(folder, "toy", METRIC, asdict(best), tolerance, "cpu")
    assert benchmark.guard is not None
    assert not benchmark.guard.within
    assert benchmark.best.candidate == won.name
    assert json.loads((folder.best / "embtune.json").read_text())["candidate"] == won.name
    told = (
        f"It loses {won.lost:.4f} on {won.lost_on}, more than the {tolerance:g} that guard.tolerance accepts, and so "
        "does all that may take its place: it is kept."
    )
    assert told in (folder.best / "README.md").read_text()
    assert "MORE than" in guarded(benchmark)
    verify(folder.best)


def test_trials_whose_weights_are_gone_or_cannot_be_read_are_left_out_and_the_latter_named(run: Path) -> None:
    folder = RunFolder(run)
    _, rows = read_leaderboard(run)
    single = benchmark_of(run).candidates[0].members[0].trial
    gone = next(trial for trial in (0, 1) if trial != single)
    for adapter in folder.trial(gone).glob(f"*/{ADAPTER}"):
        adapter.unlink()
    cut = folder.trial(2) / LAST / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-40])
    best = next(row for row in rows if row.trial == single)
    compared = compare_candidates(folder, rows, best, METRIC, 0.01, "cpu")
    assert not {gone, 2} & {share.trial for c in compared.candidates for share in c.members}
    assert f"Left out: trial 2, whose weights cannot be read ({cut}: not a whole" in compared.guard.reason
    assert "\n" not in compared.guard.reason


def test_candidates_of_bases_of_one_name_have_names_of_their_own() -> None:
    bases = ["X", "runs/a/best", "runs/b/best", "X", "X", "best"]
    assert suffixes(bases) == ["", ":best", ":best-2", ":X", ":X-2", ":best-3"]


def made_up(run: RunFolder, *trials: tuple[str, float, str]) -> list[Row]:
    """Tied rows in this order, of (state, dev score, method), whose weights are on disk."""
    rows = []
    for number, (state, score, method) in enumerate(trials):
        checkpoint = run.trial(number) / LAST
        checkpoint.mkdir(parents=True)
        (checkpoint / (WEIGHTS if method == "full" else ADAPTER)).touch()
        config = TrialConfig(base="intfloat/multilingual-e5-small", method=method).model_dump(mode="json")
        rest = 0.01, 3, 3, 3, 10, 8, 8, 1.0, str(checkpoint)
        rows.append(Row(number + 1, number, state, score, *rest, "", config, {}, tied=True))
    return rows


def test_the_members_of_an_average_come_best_on_dev_first_pruned_ones_too_and_are_eight_at_most(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    trials = [("COMPLETE", 0.5, "lora"), ("COMPLETE", 0.4, "full"), ("PRUNED", 0.3, "lora"), ("PRUNED", 0.45, "lora")]
    rows = made_up(run, *trials, *[("PRUNED", 0.2 - number / 100, "lora") for number in range(6)])
    (group,) = groups_of(run, rows, rows[0])
    assert [row.trial for row in group] == [0, 3, 1, 2, 4, 5, 6, 7]
    assert len(group) == MEMBERS == 8


def test_tied_trials_are_averaged_where_the_base_as_it_is_is_best(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = made_up(run, ("COMPLETE", 0.5, "none"), ("COMPLETE", 0.49, "lora"), ("COMPLETE", 0.48, "full"))
    (group,) = groups_of(run, rows, rows[0])
    assert [row.trial for row in group] == [0, 1, 2]


def test_the_greedy_soup_keeps_a_member_that_lifts_dev_and_refuses_one_that_lowers_it() -> None:
    dev = {(0,): 0.5, (0, 1): 0.49, (0, 2): 0.52, (0, 2, 3): 0.52, (0, 2, 3, 4): 0.51}
    shares = [Share(trial, LAST) for trial in range(5)]
    kept = greedy_soup(shares, lambda members: dev[tuple(share.trial for share in members)])
    assert [(share.trial, share.weight) for share in kept] == [(trial, 1 / 3) for trial in (0, 2, 3)]


def test_the_base_is_said_to_be_kept_only_where_it_was_exported(ended: Path, tmp_path: Path) -> None:
    """First the best single trial, say, is the base as it is, and another was exported."""
    spec, benchmark = load_spec(write_spec(tmp_path, Path("some/base"))), benchmark_of(ended)
    _, rows = read_leaderboard(ended)
    other = next(row.trial for row in rows if row.trial != benchmark.best.trial)
    for trial, kept in ((other, False), (benchmark.best.trial, True)):
        none = [replace(row, config=row.config | {"method": "none"}) if row.trial == trial else row for row in rows]
        console = Console(file=io.StringIO(), width=200, record=True)
        say_verdict(benchmark, spec, none, console, smoke=False)
        assert ("the base as it is was kept" in console.export_text()) == kept
