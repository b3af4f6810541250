"""A whole classification search through the command line, killed and gone on with: real Ray, tiny real models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder
from sklearn.metrics import f1_score
from transformers import pipeline

from evaluation.retrieval import Scores
from search import open_run
from search.results.classifier_benchmark import ClassifierBenchmark, read_end
from search.results.leaderboard import read_leaderboard
from search.screen.labels import label_verdict
from tests.conftest import TinyBase
from tests.kit.command import EMBTUNE, embtune_here
from tests.kit.labelled import write_spec
from trainables.classification.prepared import load_labelled_task


@dataclass(frozen=True)
class Done:
    """A search that was killed in its first trial and then went on to its end, and one that nothing disturbed."""

    folder: Path
    spec: Path
    run: Path
    plain: Path
    output: str


@pytest.fixture(scope="module")
def done(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("classify")
    run = folder / "runs" / "labels"
    spec = write_spec(folder, tiny_base("bert"), count=30, start=[{"lr": 2e-2, "r": 4, "targets": "qv"}])
    process = subprocess.Popen(
        [*EMBTUNE, "search", str(spec)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not list(run.glob("tune/trial_0000/checkpoint-*/rung.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = embtune_here("search", spec, "--resume", cwd=folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    undisturbed = embtune_here("search", spec, "--runs", folder / "plain", cwd=folder)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    return Done(folder, spec, run, folder / "plain" / "labels", finished.stdout)


def test_a_killed_search_comes_to_the_scores_of_an_undisturbed_one(done: Done) -> None:
    boards = [read_leaderboard(run)[1] for run in (done.run, done.plain)]
    scores = [{row.trial: (row.state, row.score, row.config) for row in board} for board in boards]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 3
    assert all("labels" in row.config for row in boards[0])


def test_the_benchmark_holds_the_best_against_the_better_baseline(done: Done) -> None:
    end = read_end(done.run / "benchmark.json")
    assert isinstance(end, ClassifierBenchmark)
    assert set(end.baselines) == {"majority", "probe"}
    assert end.baselines[end.against]["macro_f1"] == max(scores["macro_f1"] for scores in end.baselines.values())
    outcome = Scores.load(done.run / "benchmark" / "best-test.npz").outcome
    assert outcome is not None
    assert end.scores["macro_f1"] == pytest.approx(f1_score(outcome.true_Q, outcome.predicted, average="macro"))
    assert end.comparisons["macro_f1"].base == end.baselines[end.against]["macro_f1"]
    assert np.array(end.confusion).sum() == end.examples == sum(one.support for one in end.classes)
    assert label_verdict(end)[1] in " ".join(done.output.split())


def test_the_exported_model_says_what_the_benchmark_says(done: Done) -> None:
    test = load_labelled_task(done.run / "data", "test")
    outcome = Scores.load(done.run / "benchmark" / "best-test.npz").outcome
    assert outcome is not None
    classify: Any = pipeline("text-classification", model=str(done.run / "best"), device="cpu")
    said = [one["label"] for one in classify(list(test.texts))]
    assert said == [outcome.labels[at] for at in outcome.predicted]
    model = open_run(done.run).model()
    assert isinstance(model, CrossEncoder)
    assert model.config.label2id == {"impots": 0, "mairie": 1, "sante": 2}
    card = (done.run / "best" / "README.md").read_text(encoding="utf-8")
    assert "pipeline(" in card
    assert "softmax" in card
    assert "| test |" in card


def test_the_report_shows_confusion_classes_and_mistakes(done: Done) -> None:
    page = (done.run / "report.html").read_text(encoding="utf-8")
    for part in ('id="plot-confusion"', 'id="plot-classes"', 'id="plot-course"', "The surest mistakes", "majority"):
        assert part in page, part
    assert "ndcg" not in page.split("<script", 1)[0]
    frame = open_run(done.run).benchmark()
    assert list(frame["metric"])[:1] == ["macro_f1"]


def test_trials_export_and_the_run_cleans_up(done: Done) -> None:
    told = embtune_here("export", done.run, done.folder / "model", "--trial", "0", cwd=done.folder)
    assert told.returncode == 0, told.stderr
    assert "CrossEncoder" in told.stdout
    assert (done.folder / "model" / "adapter" / "head.safetensors").is_file()
    refused = embtune_here("export", done.run, done.folder / "onnx", "--format", "onnx", cwd=done.folder)
    assert refused.returncode == 2
    assert "not for a classifier" in refused.stderr
    trying = embtune_here("try", done.run, cwd=done.folder)
    assert trying.returncode == 2
    assert "a classification retrieves nothing" in trying.stderr
    cleaned = embtune_here("clean", done.plain, "--yes", cwd=done.folder)
    assert cleaned.returncode == 0, cleaned.stderr
    board = json.loads((done.plain / "leaderboard.json").read_text())
    assert board["metric"] == "macro_f1"
