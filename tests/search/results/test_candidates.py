"""Candidates of a real run of tiny models: made, compared, picked, exported, cleaned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from evaluation.retrieval import Scores, evaluate
from evaluation.task import RetrievalTask
from search.paths import RunFolder
from search.results.benchmark import Benchmark
from search.results.candidates import STRENGTHS, compare_candidates, mix_of_candidate
from search.results.card import candidate_facts
from search.results.guard import write_guard
from search.results.leaderboard import Row, read_leaderboard, write_leaderboard
from search.results.pick import winner
from search.results.promote import finish
from search.screen.summary import guarded
from search.spec.load import load_spec
from search.spec.record import write_spec as write_record
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.reload import reloading_here
from tests.kit.toy import write_spec
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.data.prepared import load_dev
from trainables.export.card import model_card
from trainables.export.manifest import verify
from trainables.export.merge import trained_model
from trainables.export.mix import Mix, mixed_model
from trainables.prepare import prepare
from trainables.training.rungs import ADAPTER, SCORES, Rung, complete_rung

METRIC = "ndcg@10"
TRIALS: dict[int, dict[str, Any]] = {  # number -> how it was trained; 3 is on another base, 4 is not tied
    0: {"r": 4, "targets": "qv"},
    1: {"r": 2, "targets": "all-linear"},
    2: {"method": "full"},
    3: {"r": 4},
    4: {"r": 4, "targets": "ffn"},
}


@pytest.fixture(scope="module")
def ended(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that came to its end. Do not write into it."""
    folder = tmp_path_factory.mktemp("ended")
    base, other = tiny_base("bert"), tiny_base("bert", width=48)
    spec = load_spec(write_spec(folder, base, concepts=25, data={"split": {"dev": 0.4, "test": 0.3}}))
    run = RunFolder(folder / "runs" / spec.name)
    report = prepare(spec.data, spec.folder, spec.seed, run.data)
    write_record(
        spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": 0})}),
        run.path,
        report.content_hash,
        {},
    )
    (folder / "guard.jsonl").write_text(
        "".join(
            json.dumps({"anchor": f"question {n} ?", "positive": f"réponse {n * 7}", "concept": str(n)}) + "\n"
            for n in range(12)
        )
    )
    write_guard(spec.guard.model_copy(update={"source": "guard.jsonl"}), folder, run)
    rows = []
    dev = load_dev(run.data)
    for number, fields in TRIALS.items():
        on = other if number == 3 else base
        for rung in (2, 3):  # of 3; the first of them is said to have scored 0
            checkpoint = run.trial(number) / f"checkpoint-{4 * rung}"
            config = trained(checkpoint, on, 10 * number + rung, scale=0.02, max_length=24, **fields)
            scores = evaluate(trained_model(config, checkpoint, "cpu"), dev, (METRIC,))
            _mark(checkpoint, rung, scores, scores.means[METRIC] * (rung == 3))
        rows.append(_row(number, config, scores.means, str(checkpoint)))
    rows.sort(key=lambda row: -(row.score or 0))
    rows = [replace(row, rank=rank) for rank, row in enumerate(rows, 1)]
    write_leaderboard(rows, METRIC, run.path)
    single = next(row for row in rows if row.trial in (0, 1))
    finish(run, "toy", METRIC, asdict(single), 0.01, "cpu").write(run.benchmark)
    return run.path


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    with reloading_here():
        yield


def _mark(checkpoint: Path, rung: int, scores: Scores, value: float) -> None:
    """Leave in the trial's folder what a trial leaves that has reached a rung."""
    means = {METRIC: value}
    done = Rung(rung, 3, 4 * rung, 12, 8, 1.0, 1.0, 1.0, 10, 100, means, means, str(checkpoint))
    complete_rung(done, scores, METRIC)


def _row(number: int, config: TrialConfig, means: dict[str, float], checkpoint: str) -> Row:
    return Row(
        rank=0, trial=number, state="COMPLETE", score=means[METRIC], error=0.01, rung=3, best_rung=3, rungs=3,
        trainable=10, pairs=8, planned_pairs=8, seconds=1.0, checkpoint=checkpoint, failure="",
        config=config.model_dump(mode="json"), metrics=means, steps=8, tied=number != 4,
    )  # fmt: skip


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    """A copy to write in."""
    return Path(shutil.copytree(ended, tmp_path / "toy"))


def benchmark_of(run: Path) -> Benchmark:
    return Benchmark.read(RunFolder(run).benchmark)


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
    assert (
        f"| guard | {benchmark.guard.part.queries} | {METRIC} | {picked.loss.base:.4f} | {picked.guard:.4f} |" in card
    )
    assert f"from {picked.loss.base:.4f} to {picked.guard:.4f}" in guarded(benchmark)


def test_what_no_strength_can_keep_is_said_in_the_card(run: Path) -> None:
    """With a tolerance just below what the strength loses that loses least."""
    folder, before = RunFolder(run), benchmark_of(run)
    won = winner(before.candidates)
    tolerance = min(c.lost for c in before.candidates if c.members == won.members) - 1e-6
    _, rows = read_leaderboard(run)
    best = next(row for row in rows if row.trial == before.candidates[0].members[0].trial)
    benchmark = finish(folder, "toy", METRIC, asdict(best), tolerance, "cpu")
    assert benchmark.guard is not None
    assert not benchmark.guard.within
    assert benchmark.best.candidate == won.name
    assert json.loads((folder.best / "embtune.json").read_text())["candidate"] == won.name
    told = (
        f"It loses {won.lost:.4f} on {won.lost_on}, more than the {tolerance:g} that guard.tolerance accepts, and so "
        "does every weaker strength that was tried: it is kept."
    )
    assert told in (folder.best / "README.md").read_text()
    assert "MORE than" in guarded(benchmark)
    verify(folder.best)


def test_a_trial_whose_weights_are_gone_is_left_out(run: Path) -> None:
    folder = RunFolder(run)
    _, rows = read_leaderboard(run)
    single = benchmark_of(run).candidates[0].members[0].trial
    gone = next(trial for trial in (0, 1) if trial != single)
    for adapter in folder.trial(gone).glob(f"*/{ADAPTER}"):
        adapter.unlink()
    best = next(row for row in rows if row.trial == single)
    compared = compare_candidates(folder, rows, best, METRIC, 0.01, "cpu")
    assert gone not in {share.trial for c in compared.candidates for share in c.members}


def export(run: Path, dest: Path, *options: str) -> tuple[int, str]:
    done = embtune_here("export", run, dest, *options, cwd=run.parent)
    return done.returncode, done.stdout + done.stderr


def test_a_candidate_is_exported_by_name_and_dest_is_replaced_on_demand(ended: Path, tmp_path: Path) -> None:
    name = next(c.name for c in benchmark_of(ended).candidates if c.strength == 0.5)
    code, said = export(ended, tmp_path / "out", "--candidate", name, "--precision", "bf16")
    assert code == 0, said
    verify(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "embtune.json").read_text())
    assert (record["candidate"], record["mix"]["strength"]) == (name, 0.5)
    code, said = export(ended, tmp_path / "out", "--candidate", name)
    assert (code, said.count("\n")) == (2, 1)
    assert "exists already" in said
    assert export(ended, tmp_path / "out", "--force")[0] == 0
    assert (tmp_path / "out" / "embtune.json").read_bytes() == (RunFolder(ended).best / "embtune.json").read_bytes()
    verify(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--candidate", "grand-soup"), "--candidate grand-soup: no such candidate, expected one of trial-"),
        (("--trial", "9"), "--trial 9: not in"),
        (("--precision", "int8"), "--precision int8: not with --format safetensors"),
        (("--candidate", "uniform-soup", "--adapter-only"), "--adapter-only"),
        (("--trial", "0", "--candidate", "greedy-soup"), "expected one of the two"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    ended: Path, tmp_path: Path, options: Sequence[str], message: str
) -> None:
    code, said = export(ended, tmp_path / "out", *options)
    assert code == 2
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_a_corrupted_adapter_and_one_of_another_base_are_told(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    out = tmp_path / "out"
    adapter = folder.trial(0) / "checkpoint-12" / ADAPTER
    adapter.write_bytes(adapter.read_bytes()[:-40])
    code, said = export(run, out, "--trial", "0")
    assert (code, said.count("\n")) == (2, 1), said
    assert "not a whole safetensors file" in said
    shutil.copy(folder.trial(3) / "checkpoint-12" / ADAPTER, adapter)
    code, said = export(run, out, "--trial", "0")
    assert (code, said.count("\n")) == (2, 1), said
    assert not out.exists()


def test_models_and_runs_are_averaged_by_hand(ended: Path, tmp_path: Path) -> None:
    shutil.copytree(RunFolder(ended).best, tmp_path / "one")
    done = embtune_here("merge", ended, tmp_path / "one", tmp_path / "mean", "--weights", "3,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verify(tmp_path / "mean")
    assert "- 0.25 of `one`" in (tmp_path / "mean" / "README.md").read_text()
    for arguments, message in (
        ((ended, tmp_path / "one", tmp_path / "mean"), "exists already"),
        ((ended, tmp_path / "one", tmp_path / "new", "--weights", "a,b"), "--weights a,b: expected numbers"),
        ((ended, tmp_path / "new"), "1 models, expected at least two"),
    ):
        refused = embtune_here("merge", *arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_clean_frees_what_no_candidate_needs_and_asks_before(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    before = sum(folder.sizes().values())
    candidates = benchmark_of(run).candidates
    asked = embtune_here("clean", run, cwd=tmp_path)  # with nobody to answer
    assert asked.returncode == 1
    assert sum(folder.sizes().values()) == before
    done = embtune_here("clean", run, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(folder.sizes().values()) < before
    assert not list(folder.trial(4).glob(f"*/{ADAPTER}"))
    assert (folder.trial(4) / "checkpoint-12" / SCORES).exists()
    single = candidates[0].members[0].trial
    rungs = {trial: len(list(folder.trial(trial).glob(f"*/{ADAPTER}"))) for trial in (0, 1)}
    assert rungs == {single: 2, 1 - single: 1}  # the best trial's last rungs are a candidate
    assert not [path for path in folder.cache.rglob("*") if path.is_file()]
    rows = read_leaderboard(run)[1]
    assert all(mixed_model(mix_of_candidate(folder, rows, candidate), "cpu") for candidate in candidates)
    assert "nothing to free" in embtune_here("clean", run, cwd=tmp_path).stdout


def test_a_run_that_has_not_ended_is_not_cleaned(run: Path, tmp_path: Path) -> None:
    RunFolder(run).benchmark.unlink()
    refused = embtune_here("clean", run, "--yes", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "expected the folder of a search that has ended" in refused.stderr
