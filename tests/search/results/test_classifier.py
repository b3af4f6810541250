"""The end of a classification search: candidates, baselines, verdict, export, report. Real tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from evaluation.compare import Comparison
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search import open_run
from search.paths import RunFolder
from search.report.write import write_report
from search.results.classifier import _candidates, _winner
from search.results.classifier_benchmark import ClassifierBenchmark, LabelCandidate, read_end
from search.results.leaderboard import read_leaderboard
from search.screen.labels import label_verdict, print_labels
from search.screen.summary import savings
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.labelled_run import labelled_run
from trainables.classification.prepared import load_labelled_task

Ended = tuple[Path, ClassifierBenchmark]


@pytest.fixture(scope="module")
def ended(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return labelled_run(tmp_path_factory.mktemp("classifier"), tiny_base("bert"))


def test_the_best_is_held_against_the_better_baseline(ended: Ended) -> None:
    run, end = ended
    assert read_end(run / "benchmark.json") == end
    assert set(end.baselines) == {"majority", "probe"}
    assert end.baselines[end.against]["macro_f1"] == max(scores["macro_f1"] for scores in end.baselines.values())
    assert end.comparisons["macro_f1"].base == end.baselines[end.against]["macro_f1"]
    outcome = Scores.load(run / "benchmark" / "best-test.npz").outcome
    assert outcome is not None
    assert end.scores["macro_f1"] == pytest.approx(f1_score(outcome.true_Q, outcome.predicted, average="macro"))
    assert np.array(end.confusion).sum() == end.examples == sum(one.support for one in end.classes)
    assert end.best.gap < 1e-4


def test_the_verdict_follows_the_interval(ended: Ended) -> None:
    _, end = ended
    found = end.comparisons["macro_f1"]
    for low, high, mood, words in (
        (0.01, 0.2, "good", "Fine-tuning helps"),
        (-0.2, -0.01, "bad", "keep the baseline"),
        (-0.1, 0.1, "open", "includes zero"),
    ):
        told = label_verdict(replace(end, comparisons={"macro_f1": replace(found, low=low, high=high)}))
        assert told[0] == mood
        assert words in told[1]


def test_the_summary_names_classes_and_baselines(ended: Ended) -> None:
    _, end = ended
    console = Console(width=150, record=True)
    print_labels(end, console, label_verdict(end))
    text = console.export_text()
    for part in ("majority", "probe", "macro_f1", "impots", "Optimism", end.reason[:20]):
        assert part in text, part


def test_averages_of_tied_trials_are_candidates_heads_included(ended: Ended) -> None:
    run, _ = ended
    _, rows = read_leaderboard(run)
    rows = [replace(row, tied=True) for row in rows]
    dev = load_labelled_task(run / "data", "dev")
    found = _candidates(RunFolder(run), rows, rows[0], dev, "macro_f1", "cpu")
    assert found[0].name == f"trial-{rows[0].trial}"
    whole = found[-1]
    assert {share.trial for share in whole.members} == {row.trial for row in rows}
    assert whole.dev_gain is not None


def test_an_average_replaces_the_best_trial_only_where_it_is_better(ended: Ended) -> None:
    _, end = ended
    gain = Comparison("macro_f1", 0.5, 0.6, 0.1, 0.01, 0.2, 0.01, 30, 30)
    single = LabelCandidate("trial-0", (), 0.5)
    better = LabelCandidate("greedy-soup", (), 0.6, gain)
    tied = LabelCandidate("uniform-soup", (), 0.7, replace(gain, low=-0.01))
    assert _winner([single, tied, better]) is better
    assert _winner([single, tied]) is single
    with pytest.raises(InputError, match="no such candidate, expected one of trial-"):
        end.candidate("nobody")


def test_the_report_shows_confusion_classes_mistakes_and_the_course(ended: Ended) -> None:
    run, end = ended
    page = write_report(run).read_text(encoding="utf-8").split("<script", 1)[0]
    for part in ("confusion", "classes", "course", "baselines", "curves"):
        assert f'id="plot-{part}"' in page, part
    assert "The surest mistakes" in page
    assert "impots" in page
    assert "passages" not in page
    assert label_verdict(end)[1].split(":")[0] in page


def test_tables_of_a_run_from_python(ended: Ended) -> None:
    run, end = ended
    opened = open_run(run)
    frame = opened.benchmark()
    assert frame.loc[frame["metric"] == "macro_f1", "best"].item() == pytest.approx(end.scores["macro_f1"])
    assert len(opened.leaderboard()) == 3
    config: Any = opened.model().config
    assert config.id2label[0] == "impots"
    with pytest.raises(InputError, match="a classification ranks nothing"):
        opened.movers()


def test_commands_of_a_run_that_ended(ended: Ended, tmp_path: Path) -> None:
    run, _ = ended
    board = embtune_here("leaderboard", run, cwd=tmp_path)
    assert board.returncode == 0, board.stderr
    assert "macro_f1" in board.stdout
    assert "batches" not in board.stdout
    copied = embtune_here("export", run, tmp_path / "model", cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert "CrossEncoder" in copied.stdout
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "pipeline(" in card
    assert "softmax" in card
    assert "| test |" in card
    refused = embtune_here("export", run, tmp_path / "onnx", "--format", "onnx", cwd=tmp_path)
    assert refused.returncode == 2
    assert "not for a classifier" in refused.stderr
    trying = embtune_here("try", run, cwd=tmp_path)
    assert trying.returncode == 2
    assert "a classification retrieves nothing" in trying.stderr
    assert "saved" in savings(read_leaderboard(run)[1])
