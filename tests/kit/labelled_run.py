"""A classification search's whole folder, its trials trained one after the other in this process, without Ray."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from search.paths import RunFolder
from search.results.choice import choose, mark_tied
from search.results.classifier import finish_classifier
from search.results.classifier_benchmark import ClassifierBenchmark
from search.results.leaderboard import leaderboard, write_leaderboard
from search.spec.load import load_spec
from search.spec.record import write_spec as write_record
from search.spec.sections import ClassificationSpec
from search.spec.task_data import prepare_data, with_labels
from search.study.study import Study
from tests.kit.labelled import write_spec
from trainables.classification.prepared import LabelledData
from trainables.train import train
from trainables.training.rungs import Rung


def labelled_run(folder: Path, base: Path, pairs: bool = False) -> tuple[Path, ClassifierBenchmark]:
    """The run's folder and its end."""
    loaded = load_spec(write_spec(folder, base, count=24, pairs=pairs, pruner={"name": "none"}))
    assert isinstance(loaded, ClassificationSpec)
    run = RunFolder(folder / "runs" / loaded.name)
    report = prepare_data(loaded, run.data, None)
    spec = with_labels(loaded, report.labels)  # type: ignore[union-attr]
    write_record(spec, run.path, report.content_hash, {str(base): None})
    study = Study(run.path, spec)
    data = LabelledData.load(run.data)
    while (proposal := study.next_trial()) is not None:
        number = proposal.number

        def told(rung: Rung, number: int = number) -> None:
            study.report(number, rung.rung, asdict(rung))

        train(proposal.config, data, told, folder=run.trial(number), metric=spec.metric, device="cpu")
        study.complete(number)
    rows = mark_tied(leaderboard(study.trials, spec.metric, study.space.rungs), run.path, spec.metric)
    write_leaderboard(rows, spec.metric, run.path)
    choice = choose(rows)
    assert choice is not None
    benchmark = finish_classifier(run, spec.name, spec.metric, asdict(choice.row), "cpu")
    benchmark.write(run.benchmark)
    return run.path, benchmark
