"""The whole path through the command line: real Ray, real Optuna, tiny real models."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from search import open_run
from search.results.benchmark import Benchmark
from search.results.leaderboard import read_leaderboard
from search.screen.console import make_console
from search.screen.summary import gain
from search.spec.load import load_spec
from search.staging import Staging
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.toy import write_spec

UMASK = 0o027  # of the searches: another than the usual 022, so that what looks at neither shows


def journal(run: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return optuna.load_study(study_name=None, storage=storage)


def own_umask() -> int:
    """This process's."""
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


@dataclass(frozen=True)
class Done:
    """A search that came to its end."""

    folder: Path
    run: Path
    output: str


@pytest.fixture(scope="module")
def done(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("search")
    # Among a part's own passages these few steps tell trials apart, so that one of them is stopped.
    start, data = [{"r": 4, "targets": "qv", "lr": 5e-3}], {"distractors": False}
    spec = write_spec(folder, tiny_base("xlm-roberta"), start=start, data=data)
    own = os.umask(UMASK)
    finished = embtune_here("search", spec, cwd=folder)
    os.umask(own)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return Done(folder, folder / "runs" / "toy", finished.stdout)


def test_the_run_folder_is_complete(done: Done) -> None:
    for name in (
        "spec.json",
        "study.journal",
        "leaderboard.json",
        "benchmark.json",
        "best/modules.json",
        "report.html",
    ):
        assert (done.run / name).exists(), name
    for part in ("train.jsonl", "dev.jsonl", "test.jsonl", "report.json"):
        assert (done.run / "data" / part).stat().st_size
    record = json.loads((done.run / "spec.json").read_text())
    assert record["record"]["versions"]["ray"]
    assert record["pruner"]["name"] == "halving"  # a default, written out
    assert record["resources"]["gpus"] == torch.cuda.is_available()  # left open in the spec, decided by the machine


def test_every_trial_is_in_the_study_once_and_has_ended(done: Done) -> None:
    trials = journal(done.run).trials
    assert [t.number for t in trials] == list(range(5))
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)


def test_no_concept_stands_in_two_parts(done: Done) -> None:
    concepts = {
        part: {json.loads(line)["concept"] for line in (done.run / "data" / f"{part}.jsonl").read_text().splitlines()}
        for part in ("train", "dev", "test")
    }
    assert not concepts["train"] & concepts["dev"]
    assert not concepts["train"] & concepts["test"]
    assert not concepts["dev"] & concepts["test"]


def test_the_study_and_the_leaderboard_agree(done: Done) -> None:
    study = journal(done.run)
    metric, rows = read_leaderboard(done.run)
    assert metric == "ndcg@10"
    assert sorted(row.trial for row in rows) == [t.number for t in study.trials]
    for row in rows:
        trial = study.trials[row.trial]
        assert row.state == trial.state.name
        assert row.score == max(trial.intermediate_values.values())
    assert rows[0].config["base"]
    assert study.trials[0].params["lr"] == 5e-3  # the starting point, first


def test_each_rung_is_told_with_its_own_score(done: Done) -> None:
    told = re.findall(r"^trial (\d+): rung (\d)/3, ndcg@10 ([\d.]+)", done.output, flags=re.MULTILINE)
    trials = journal(done.run).trials
    assert {int(number) for number, *_ in told} == {t.number for t in trials}
    for number, rung, score in told:
        assert score == f"{trials[int(number)].intermediate_values[int(rung)]:.4f}"


def test_a_bad_trial_was_pruned_in_the_study_and_stopped_for_real(done: Done) -> None:
    pruned = [t for t in journal(done.run).trials if t.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert 1 <= len(trial.intermediate_values) < 3
        markers = list((done.run / "tune" / f"trial_{trial.number:04d}").glob("checkpoint-*/rung.json"))
        assert len(markers) == len(trial.intermediate_values)
    assert "The pruner stopped" in done.output
    assert not list((done.run / "tune").glob("*/*/optimizer.pt"))  # what only a resume needs is gone once a trial ends


def test_the_best_model_loads_and_the_benchmark_names_both(done: Done) -> None:
    model = SentenceTransformer(str(done.run / "best"))
    assert model.encode_query("DGFiP").shape == (32,)
    benchmark = json.loads((done.run / "benchmark.json").read_text())
    assert set(benchmark["protocols"]) == {"concept", "definition"}
    comparison = benchmark["protocols"]["concept"]["comparisons"]["ndcg@10"]
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert benchmark["best"]["reload_cosine"] >= 0.9999
    assert "SentenceTransformer(" in done.output
    assert benchmark["candidates"][0]["strength"] == 1
    assert benchmark["best"]["candidate"] in {candidate["name"] for candidate in benchmark["candidates"]}
    assert benchmark["guard"]["part"]["queries"] == 12
    assert "Guard: on 12 questions that nothing was tuned on" in " ".join(done.output.split())
    _, verdict = gain(Benchmark.read(done.run / "benchmark.json"), "concept", base_kept=False)
    assert verdict in " ".join(done.output.split())


def test_a_real_run_opens_in_python_with_its_tables_and_its_model(done: Done) -> None:
    run = open_run(done.run)
    trials, curves = run.leaderboard(), run.curves()
    assert sorted(trials.index) == [t.number for t in journal(done.run).trials]
    assert set(zip(curves["trial"], curves["rung"], strict=True)) == {
        (t.number, rung) for t in journal(done.run).trials for rung in t.intermediate_values
    }
    assert set(run.benchmark()["protocol"]) == {"concept", "definition"}
    told = Benchmark.read(done.run / "benchmark.json").protocols["concept"].comparisons["ndcg@10"]
    assert run.movers()["after"].mean() == pytest.approx(told.other)
    model = run.model()
    assert isinstance(model, SentenceTransformer)
    assert model.encode_query("DGFiP").shape == (32,)


def test_every_file_of_a_run_is_as_readable_as_the_umask_says(done: Done) -> None:
    made = list(done.run.rglob("*"))
    assert any(path.parent.name == "best" and path.suffix == ".safetensors" for path in made)
    assert [path for path in made if path.stat().st_mode & 0o777 != (0o750 if path.is_dir() else 0o640)] == []


def test_the_leaderboard_command_prints_json_and_csv(done: Done) -> None:
    shown = embtune_here("leaderboard", done.run, "--json", cwd=done.folder)
    assert json.loads(shown.stdout)["rows"][0]["rank"] == 1
    as_csv = embtune_here("leaderboard", done.run, "--csv", cwd=done.folder).stdout.splitlines()
    assert len(as_csv) == 1 + len(read_leaderboard(done.run)[1])
    assert "ndcg@10" in as_csv[0]


def test_export_writes_the_best_and_a_chosen_trial(done: Done, tmp_path: Path) -> None:
    assert embtune_here("export", done.run, tmp_path / "a", cwd=done.folder).returncode == 0
    assert SentenceTransformer(str(tmp_path / "a")).encode_query("DGFiP").shape == (32,)
    other = read_leaderboard(done.run)[1][1].trial
    exported = embtune_here("export", done.run, tmp_path / "b", "--trial", str(other), cwd=done.folder)
    assert exported.returncode == 0, exported.stderr
    assert json.loads((tmp_path / "b" / "embtune.json").read_text())["trial"] == other
    modes = {path.stat().st_mode & 0o777 for name in "ab" for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert modes == {0o666 & ~own_umask()}  # of who exports; the search was another's
    again = embtune_here("export", done.run, tmp_path / "a", cwd=done.folder)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "exists already" in again.stderr


def test_a_search_that_is_over_refuses_to_go_on_with_another_space(done: Done) -> None:
    other = (done.folder / "toy.yaml").read_text().replace("batch_size: 16", "batch_size: 8")
    (done.folder / "other.yaml").write_text(other)
    refused = embtune_here("search", "other.yaml", "--resume", cwd=done.folder)
    assert refused.returncode == 2
    assert "space.batch_size was 16 and is now 8" in refused.stderr


def test_an_ended_run_is_kept_under_another_name(done: Done, tmp_path: Path) -> None:
    shutil.copytree(done.run, tmp_path / "toy")
    spec = load_spec(done.folder / "toy.yaml")
    with Staging(spec, tmp_path / "toy", resume=False) as staging:
        staging.prepare(make_console())
        staging.settle(make_console())
    (kept,) = tmp_path.glob("toy-*")
    assert (kept / "study.journal").read_bytes() == (done.run / "study.journal").read_bytes()
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["data", "guard", "spec.json"]


def test_a_second_search_in_one_folder_is_refused(tiny_base: TinyBase, tmp_path: Path) -> None:
    from filelock import FileLock

    spec = write_spec(tmp_path, tiny_base("bert"))
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / ".toy.lock"):
        refused = embtune_here("search", spec, cwd=tmp_path)
    assert refused.returncode == 2
    assert "another `embtune search` is at work" in refused.stderr


def test_a_base_with_missing_weights_stops_the_search_before_it_begins(tiny_base: TinyBase, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base("bert"), tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    gone = next(name for name in weights if name.endswith("attention.self.query.weight"))
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, base / "model.safetensors")
    refused = embtune_here("search", write_spec(tmp_path, base), cwd=tmp_path)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("embtune: "))
    assert f"its files lack {gone}" in line
    assert not (tmp_path / "runs" / "toy").exists()


def test_an_unwritable_folder_is_one_line(tiny_base: TinyBase, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"))
    (tmp_path / "file").write_text("no folder")
    refused = embtune_here("search", spec, "--runs", tmp_path / "file" / "runs", cwd=tmp_path)
    assert refused.returncode == 2
    assert "cannot be written" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": {"nome": "tpe"}}, "sampler.nome: unknown key"),
        ({"data": {"source": "none.jsonl"}}, "none.jsonl"),
        ({"data": {"columns": {"anchor": "question"}}}, "question"),
        ({"metric": "accuracy"}, "metric: no such metric"),
        ({"space": {"r": []}}, "space.r: an empty list"),
        ({"space": {"base": "/no/such/folder"}}, "/no/such/folder"),
        ({"space": {"targets": "xyz"}}, "xyz"),
        ({"space": {"base": ""}}, "space.base"),
        ({"resources": {"cpus": 4096}}, "4096 CPUs"),
    ],
)
def test_a_wrong_search_is_one_line_and_exit_code_2(
    tiny_base: TinyBase, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"), **change)
    refused = embtune_here("search", spec, cwd=tmp_path)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list((tmp_path / "runs").glob("toy*"))
    assert not list((tmp_path / "runs").glob(".toy.new"))
