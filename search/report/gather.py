"""What a run's folder tells, gathered for its report. Reading takes no lock: a search may be at work in the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from evaluation.errors import InputError
from evaluation.retrieval import Scores
from evaluation.task import Protocol, RetrievalTask
from search.paths import MODELS, STAND_INS, RunFolder
from search.report.axes import Axis, axes
from search.report.mistakes import Mistake, course_of, find_mistakes
from search.results.benchmark import Benchmark
from search.results.choice import choose, mark_tied
from search.results.classifier_benchmark import ClassifierBenchmark, read_end
from search.results.importance import Importance, importances
from search.results.leaderboard import Row, leaderboard
from search.spec.record import read_record
from search.study.read import read_study
from search.study.study import proposed_to_run
from trainables.classification.prepared import load_label_report
from trainables.classification.report import LabelReport
from trainables.data.prepared import load_report, load_task
from trainables.data.report import DataReport

MOVERS = 10  # queries that are shown on each side
SHOWN = 3  # passages of a query


@dataclass(frozen=True)
class Point:
    """A dev evaluation of a trial."""

    rung: int
    score: float
    error: float


@dataclass(frozen=True)
class Found:
    """A passage that a model ranked, and whether it is relevant."""

    text: str
    relevant: bool


@dataclass(frozen=True)
class Mover:
    """A test query whose score changed.

    Attributes:
        query: its text.
        before, after: the metric with the base and with the best model.
        relevant: how many passages answer it.
        found_before, found_after: the first passages of each model.
    """

    query: str
    before: float
    after: float
    relevant: int
    found_before: tuple[Found, ...]
    found_after: tuple[Found, ...]


@dataclass(frozen=True)
class RunData:
    """Everything a report shows.

    Attributes:
        name: of the run.
        spec: spec.json.
        metric: that was maximised on dev.
        rows: the leaderboard, ties marked.
        curves: trial -> its dev evaluations in order.
        axes: the searched fields, most important first.
        importance: likewise; empty with too few trials.
        benchmark: benchmark.json; None: the search has not come to it.
        protocol: of the dev score and of the verdict.
        errors: "base" or "best" -> metric -> standard error of its test score, on that protocol.
        chosen: the trial that was merged, or would be; None: no trial is complete.
        reason: why it was chosen.
        improved, worsened: test queries that changed most.
        data: what the data check found.
        hours: wall time of the search.
        smoke: whether the models are stand-ins, so that no score means anything.
        disk: folder of the run -> bytes; its files are under "".
        ended: of a classification, benchmark.json; None: it has not come to it.
        mistakes: of a classification, on the test part, the surest first.
        course: of a classification's chosen trial, rung by rung: training loss, and dev metrics.
    """

    name: str
    spec: dict[str, Any]
    metric: str
    rows: list[Row]
    curves: dict[int, list[Point]]
    axes: list[Axis]
    importance: list[Importance]
    benchmark: Benchmark | None
    protocol: Protocol
    errors: dict[str, dict[str, float]]
    chosen: int | None
    reason: str
    improved: list[Mover]
    worsened: list[Mover]
    data: DataReport | LabelReport
    hours: float
    smoke: bool
    disk: dict[str, int] = field(default_factory=dict)
    ended: ClassifierBenchmark | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    course: list[dict[str, float]] = field(default_factory=list)

    @property
    def classifies(self) -> bool:
        """Whether it is a classification."""
        return self.spec.get("task") == "classification"

    @property
    def row(self) -> Row | None:
        """The chosen trial's row."""
        return next((row for row in self.rows if row.trial == self.chosen), None)

    @property
    def made_of(self) -> str:
        """The trials that the exported model is made of, or the best so far, for people."""
        if self.benchmark is None:
            return f"Best so far: trial {self.chosen}"
        name = self.benchmark.best.candidate
        trials = self.benchmark.candidate(name).trials if name else (self.benchmark.best.trial,)
        told = f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"
        return f"Exported: {name}, merged from {told}" if name else f"Merged: {told}"


def gather(run: Path) -> RunData:
    """Read a run's folder, of a search that has ended, was stopped or is at work.

    Raises:
        InputError: the folder is no run, or something in it is missing.
    """
    folder = RunFolder(run)
    study = read_study(folder)
    spec = read_record(run)
    metric = spec["metric"]
    trials = proposed_to_run(study.get_trials(deepcopy=False))
    curves = {trial.number: _curve(trial, metric) for trial in trials}
    rungs = next((t.user_attrs["rung_1"].get("rungs", 0) for t in trials if "rung_1" in t.user_attrs), 0)
    rows = mark_tied(leaderboard(trials, metric, rungs), run, metric)
    end = read_end(folder.benchmark) if folder.benchmark.exists() else None
    benchmark, ended = (end, None) if not isinstance(end, ClassifierBenchmark) else (None, end)
    choice = choose(rows)
    chosen = end.best.trial if end else choice.row.trial if choice else None
    classifies = spec.get("task") == "classification"
    data = load_label_report(folder.data) if classifies else load_report(folder.data)
    protocol: Protocol = "concept" if isinstance(data, LabelReport) else data.config.protocol
    errors: dict[str, dict[str, float]] = {}
    movers: list[Mover] = []
    if benchmark:
        protocol = benchmark.main_protocol(protocol) or protocol
        scores = {label: Scores.load(folder.scores(label, protocol)) for label in MODELS}
        errors = {label: {m: s.standard_error(m) for m in s.per_query} for label, s in scores.items()}
        movers = _movers(load_task(folder.data, "test", protocol), scores["base"], scores["best"], metric)
    ranking = importances(trials, rows, spec["seed"])
    return RunData(
        name=spec["name"] or run.name,
        spec=spec,
        metric=metric,
        rows=rows,
        curves=curves,
        axes=axes(trials, [one.field for one in ranking]),
        importance=ranking,
        benchmark=benchmark,
        protocol=protocol,
        errors=errors,
        chosen=chosen,
        # A benchmark of an earlier version may have chosen by other rules.
        reason=choice.reason if choice and choice.row.trial == best_single(benchmark, chosen) else "",
        improved=[m for m in movers if m.after > m.before][:MOVERS],
        worsened=[m for m in reversed(movers) if m.after < m.before][:MOVERS],
        data=data,
        hours=float(study.user_attrs.get("elapsed_s", 0.0)) / 3600,
        smoke=any(STAND_INS in Path(str(row.config.get("base", ""))).parts for row in rows),
        disk=folder.sizes(),
        ended=ended,
        mistakes=find_mistakes(folder) if ended else [],
        course=next((course_of(t) for t in trials if t.number == chosen), []) if classifies else [],
    )


def best_single(benchmark: Benchmark | None, chosen: int | None) -> int | None:
    """The trial that the choice's sentence is on: the first candidate's, whichever was exported."""
    return benchmark.candidates[0].trials[0] if benchmark and benchmark.candidates else chosen


def _curve(trial: FrozenTrial, metric: str) -> list[Point]:
    records = [(rung, trial.user_attrs.get(f"rung_{rung}")) for rung in sorted(trial.intermediate_values)]
    return [Point(rung, r["metrics"][metric], r["errors"][metric]) for rung, r in records if r]


def _movers(task: RetrievalTask, before: Scores, after: Scores, metric: str) -> list[Mover]:
    """The test queries, the most improved first."""
    if before.query_ids != after.query_ids:
        raise InputError("benchmark/: base and best were scored on different queries, expected the same")
    change_Q = after.values(metric) - before.values(metric)
    # The ends are all that is shown; texts of the middle are not looked up.
    order = np.argsort(-change_Q, kind="stable")
    ends = [*order[:MOVERS], *order[MOVERS:][-MOVERS:]]
    return [_mover(task, before, after, metric, int(q)) for q in ends]


def _mover(task: RetrievalTask, before: Scores, after: Scores, metric: str, q: int) -> Mover:
    query = before.query_ids[q]
    relevant = {passage for passage, grade in task.qrels[query].items() if grade > 0}

    def found(top_ids: Sequence[str]) -> tuple[Found, ...]:
        return tuple(Found(task.corpus[str(i)], str(i) in relevant) for i in top_ids[:SHOWN])

    return Mover(
        query=task.queries[query],
        before=float(before.values(metric)[q]),
        after=float(after.values(metric)[q]),
        relevant=len(relevant),
        found_before=found(before.top_ids_QK[q]),
        found_after=found(after.top_ids_QK[q]),
    )
