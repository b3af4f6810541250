"""A search's whole folder in seconds: real study, data, scores, choice and benchmark; only the models are toys.

The toy model embeds a text by its character trigrams and adds noise. Training turns the noise down, so that later
rungs and better configurations retrieve better.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.benchmark.task_files import load_tasks
from evaluation.compare import compare
from evaluation.embeddings import unit_rows
from evaluation.metrics import DEFAULT_METRICS
from evaluation.retrieval import Scores, TaskEmbeddings, score_embeddings
from evaluation.task import Protocol, RetrievalTask
from search.paths import MODELS, RunFolder
from search.results.benchmark import Benchmark, Candidate, DevAndTest, Guard, Optimism, Part, Share, Winner
from search.results.choice import choose, mark_tied
from search.results.guard import GENERAL
from search.results.leaderboard import Row, leaderboard, write_leaderboard
from search.results.pick import pick
from search.spec.load import SearchSpec, load_spec
from search.spec.record import write_spec as write_record
from search.study.study import Study
from tests.kit.toy import write_spec
from trainables.config import TrialConfig
from trainables.data.prepared import load_task
from trainables.prepare import prepare
from trainables.training.rungs import Rung, complete_rung

DIMENSIONS = 256
METRIC = "ndcg@10"
PROTOCOLS: tuple[Protocol, ...] = ("concept", "definition")


def toy_scores(task: RetrievalTask, noise: float, seed: int = 0) -> Scores:
    """The task as the toy model with so much noise retrieves it."""
    query_ids, corpus_ids = tuple(task.queries), tuple(sorted(task.corpus, reverse=True))
    queries = _embed([task.queries[i] for i in query_ids], noise, seed)
    corpus = _embed([task.corpus[i] for i in corpus_ids], noise, seed + 1)
    return score_embeddings(TaskEmbeddings(task, query_ids, corpus_ids, queries, corpus), DEFAULT_METRICS)


def _embed(texts: Sequence[str], noise: float, seed: int) -> NDArray[np.float32]:
    rows_ND = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, text in zip(rows_ND, texts, strict=True):
        for start in range(len(text) - 2):
            row[zlib.crc32(text[start : start + 3].lower().encode()) % DIMENSIONS] += 1
    drawn = np.random.default_rng(seed).standard_normal(rows_ND.shape)
    return unit_rows((unit_rows(rows_ND) + noise / math.sqrt(DIMENSIONS) * drawn).astype(np.float32))


def toy_noise(config: TrialConfig, rung: int) -> float:
    """Least at lr 1e-3, less with each rung."""
    return 1.2 * (0.4 + 0.3 * abs(math.log10(config.lr) + 3)) * (1.3 - 0.1 * rung)


def run_trials(study: Study, run: Path, task: RetrievalTask, failing: Sequence[int] = ()) -> None:
    """Run the study's trials with the toy model, one after the other."""
    while (proposal := study.next_trial()) is not None:
        if proposal.number in failing:
            study.fail(proposal.number, "the loss is nan at step 3 <b>of</b> 8")
            continue
        for number in range(1, study.space.rungs + 1):
            rung, scores = toy_rung(run, proposal.number, proposal.config, number, study.space.rungs, task)
            complete_rung(rung, scores, METRIC)
            if study.report(proposal.number, number, asdict(rung)):
                break
        study.complete(proposal.number)


def toy_rung(
    run: Path, trial: int, config: TrialConfig, number: int, rungs: int, task: RetrievalTask
) -> tuple[Rung, Scores]:
    """What training up to a rung tells, and the dev scores behind it."""
    scores = toy_scores(task, toy_noise(config, number))
    rung = Rung(
        rung=number,
        rungs=rungs,
        step=2 * number,
        steps=2 * rungs,
        pairs=32 * number,
        loss=3.0 - 0.5 * number,
        train_s=1.5,
        eval_s=0.5,
        trainable=1024 * config.r,
        total=100_000,
        metrics=scores.means,
        errors={name: scores.standard_error(name) for name in scores.means},
        folder=str(RunFolder(run).trial(trial) / f"checkpoint-{2 * number}"),
    )
    return rung, scores


def make_run(
    folder: Path, name: str = "toy", *, base: str = "some/base", suffix: str = "", finished: bool = True, **changes: Any
) -> Path:
    """A run's folder, up to its benchmark when `finished`; `suffix` is put at the end of every text."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"budget": {"trials": 8}, "data": {"split": {"dev": 0.4, "test": 0.3}}} | changes
    spec = load_spec(write_spec(folder, Path(base), name=name, **settings))
    pairs = folder / "pairs.jsonl"
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    texts = [{**row, **{key: row[key] + suffix for key in ("anchor", "positive")}} for row in rows]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    run = folder / "runs" / name
    report = prepare(spec.data, spec.folder, spec.seed, run / "data")
    write_record(spec, run, report.content_hash, {base: None})
    study = Study(run, spec)
    run_trials(study, run, load_task(run / "data", "dev"), failing=(5,))
    if finished:
        end(run, spec, study)
    return run


def end(run: Path, spec: SearchSpec, study: Study) -> list[Row]:
    """Leaderboard and benchmark, as search/run.py and search/results/promote.py write them."""
    rows = mark_tied(leaderboard(study.trials, spec.metric, study.space.rungs), run, spec.metric)
    write_leaderboard(rows, spec.metric, run)
    choice = choose(rows)
    assert choice is not None
    chosen = TrialConfig.model_validate(choice.row.config)
    noises = {"base": toy_noise(chosen, 0) * 1.5, "best": toy_noise(chosen, choice.row.best_rung)}
    folder = RunFolder(run)
    protocols: dict[Protocol, Part] = {}
    for protocol in PROTOCOLS:
        task = load_task(folder.data, "test", protocol)
        before, after = (toy_scores(task, noises[model]) for model in MODELS)
        before.save(folder.scores("base", protocol))
        after.save(folder.scores("best", protocol))
        protocols[protocol] = Part.of(task, before, after, DEFAULT_METRICS)
    candidates, guard = toy_candidates(folder, choice.row, noises)
    base_dev = toy_scores(load_task(folder.data, "dev"), noises["base"]).means[METRIC]
    test = protocols["concept"]
    Benchmark(
        metric=METRIC,
        base=chosen.base,
        best=Winner(choice.row.trial, "best", 1.0, candidates[0].name),
        protocols=protocols,
        optimism=Optimism(
            best=DevAndTest(choice.row.metrics[METRIC], test.best[METRIC]),
            base=DevAndTest(base_dev, test.base[METRIC]),
        ),
        seconds={"data": 0.2, "ray": 3.0, "trials": 40.0, "merge": 1.0, "benchmark": 2.0},
        candidates=candidates,
        guard=guard,
    ).write(folder.benchmark)
    return rows


def toy_candidates(run: RunFolder, row: Row, noises: dict[str, float]) -> tuple[tuple[Candidate, ...], Guard]:
    """The chosen trial and strengths of it: noise falls from the base's with each, on the guard it rises."""
    (whole,) = load_tasks(GENERAL)
    kept = list(whole.queries)[:60]
    queries, qrels = {q: whole.queries[q] for q in kept}, {q: whole.qrels[q] for q in kept}
    groups = {q: whole.groups[q] for q in kept}
    task = RetrievalTask("guard", whole.corpus, queries, qrels, groups)
    dev, forgotten = load_task(run.data, "dev"), toy_scores(task, noises["best"])
    single, found = toy_scores(dev, noises["best"]), []
    for strength in (1.0, 0.5, 0.75, 1.25):
        noise = noises["base"] + strength * (noises["best"] - noises["base"])
        scores, guard = toy_scores(dev, noise), toy_scores(task, noises["best"] * (1 + 0.2 * strength))
        against = None if strength == 1 else compare(single, scores, METRIC)
        found.append(
            Candidate(
                f"trial-{row.trial}" if strength == 1 else f"trial-{row.trial}@{strength:g}",
                (Share(row.trial, Path(row.checkpoint).name),),
                strength,
                scores.means[METRIC],
                guard.means[METRIC],
                compare(forgotten, guard, METRIC),
                against,
                None if against is None else compare(forgotten, guard, METRIC),
            )
        )
    part = Part.of(task, forgotten, toy_scores(task, noises["best"] * 1.2), DEFAULT_METRICS)
    chosen = pick(found[:1], 0.01)
    return tuple(found), Guard(0.01, chosen.within, chosen.reason, part)
