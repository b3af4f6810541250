"""Models x tasks -> one table: each fine-tuned model beside its own base, with intervals and corrected p-values."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from evaluation.benchmark.details import model_details
from evaluation.benchmark.judge import QUESTIONS, Judge
from evaluation.benchmark.models import ModelEntry, load_model, resolve_model, same_model, saved_prompts
from evaluation.benchmark.mteb_tasks import load_mteb
from evaluation.benchmark.speed import measure_speed
from evaluation.benchmark.table import SPEED_TOKENS, BenchmarkTable, ModelRow
from evaluation.benchmark.task_files import load_tasks
from evaluation.compare import Comparison, compare, holm
from evaluation.embedding_cache import EmbeddingCache
from evaluation.errors import InputError
from evaluation.metrics import DEFAULT_METRICS, depth
from evaluation.retrieval import Scores, embed_task, score_embeddings
from evaluation.task import Protocol, RetrievalTask, named

Loader = Callable[[str, str | None], SentenceTransformer]


def run_benchmark(
    task_paths: Sequence[str | Path],
    models: Sequence[str],
    *,
    mteb: Sequence[str] = (),
    split: str | None = None,
    protocols: Sequence[Protocol] = ("concept",),
    metric: str = "ndcg@10",
    metrics: Sequence[str] = DEFAULT_METRICS,
    details: bool = False,
    judge: Judge | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    load: Loader = load_model,
    output: Path | None = None,
    progress: bool = False,
    bases: Sequence[str] = (),
    sizes: bool = False,
) -> BenchmarkTable:
    """What `embtune benchmark` does: read the tasks, resolve the models, benchmark them, write the table.

    Args:
        task_paths: BEIR folders or JSONL files of pairs.
        models: hub ids, model folders or run folders.
        mteb: names of MTEB retrieval tasks, taken from the hub.
        split: of the tasks; None: test where there is one, else dev, validation, train.
        protocols: of files of pairs.
        output: folder for benchmark.json, benchmark.csv and benchmark.md; None: nothing is written.
        bases: models that are benchmarked too, each left out with a note where it cannot be had.
        metric, metrics, details, judge, batch_size, cache, load, progress, sizes: see `benchmark`.

    Raises:
        InputError: no task, no model, or what is wrong with one of them.
    """
    if not task_paths and not mteb:
        raise InputError("no task to benchmark on, expected a BEIR folder, a .jsonl file of pairs or an MTEB task")
    entries = [resolve_model(name) for name in models]
    entries += [ModelEntry(name, name, optional=True) for name in bases if name not in models]
    tasks = [task for path in task_paths for task in load_tasks(path, split, protocols)]
    tasks += [task for name in mteb for task in load_mteb(name)]
    table = benchmark(
        entries,
        tasks,
        metric=metric,
        metrics=metrics,
        details=details,
        judge=judge,
        batch_size=batch_size,
        cache=cache,
        load=load,
        progress=progress,
        sizes=sizes,
    )
    if output is not None:
        table.write(output)
    return table


def benchmark(
    models: Sequence[ModelEntry],
    tasks: Sequence[RetrievalTask],
    *,
    metric: str = "ndcg@10",
    metrics: Sequence[str] = DEFAULT_METRICS,
    details: bool = False,
    judge: Judge | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    load: Loader = load_model,
    progress: bool = False,
    sizes: bool = False,
) -> BenchmarkTable:
    """Score every model on every task, one model in memory at a time, and compare each with its base.

    The base of a fine-tuned model is benchmarked too where the caller did not name it, as it would be used without the
    fine-tuning: with its own longest input. One without prompts of its own gets those saved with its fine-tuned model.
    Where the two differ in prompts or in length, the notes say so.

    Args:
        models: M entries of different names.
        tasks: T tasks of different names.
        metric: what rows are sorted by and compared on.
        metrics: what is computed besides.
        details: also cosine protocols, truncated sizes and encoding speed, for each row.
        judge: also context precision and recall as a language model judges them, for each row; where it fails, it is
            asked no more and a note says so.
        batch_size: texts encoded at once.
        cache: folder of embeddings that are kept on disk; None: nothing is kept.
        load: location, revision -> model; search hands in the loader that knows the families' prompts.
        progress: show a bar for each encoding.
        sizes: also count each model's parameters and time its encoding of the first task's passages.

    Returns:
        T x (M + added bases) rows: tasks in their order, the best model of each first. P-values are corrected over all
        comparisons of the table (Holm).

    Raises:
        InputError: no models or tasks, a name that stands twice, an unknown metric, a model that cannot be loaded.
    """
    metrics = tuple(dict.fromkeys((*metrics, metric)))
    depth(metrics)
    _refuse_twice("model", [entry.name for entry in models])
    _refuse_twice("task", [task.name for task in tasks])
    notes = [f"task {task.name}: {line}" for task in tasks for line in task.left_out]
    alone = [task.name for task in tasks if len(set(task.groups.values())) < 2]
    notes += [f"task {name}: all queries are of one concept, so nothing can be said of a difference" for name in alone]

    rows: list[ModelRow] = []
    scores: dict[tuple[str, str], Scores] = {}
    lengths: dict[str, int | None] = {}
    entries = _with_bases(models)
    judging = judge
    for entry in entries:
        model = _load(entry, models, load, notes)
        if model is None:
            continue
        lengths[entry.name] = model.max_seq_length
        kept = EmbeddingCache.of(model, cache) if cache is not None else None
        size = _size(model, tasks[0], batch_size) if sizes else {}
        for task in tasks:
            embeddings = embed_task(model, task, batch_size, kept, progress)
            found = score_embeddings(embeddings, metrics)
            scores[task.name, entry.name] = found
            extra = model_details(model, embeddings, metric, batch_size) if details else None
            if judging is not None:
                try:
                    extra = {**(extra or {}), "judged": judging.judged(task, found)}
                except InputError as error:  # what was computed and judged so far stays
                    notes.append(f"not judged from task {task.name}, model {entry.name} on: {error}")
                    judging = None
            row = _row(entry, task, found, metric, embeddings.queries_QD.shape[1], extra)
            rows.append(replace(row, **size))
        del model
        gc.collect()  # its memory is free before the next one is loaded

    if not rows:
        raise InputError("no model to benchmark could be had: " + "; ".join(notes))
    if judge is not None:
        notes.append(f"{judge.endpoint.model} judged contexts, of at most {QUESTIONS} questions of each task")
    if judge is not None and judge.unread:
        notes.append(f"left out {named(list(judge.unread))} of what was judged: a reply without a verdict")
    bases = {entry.name: _base_name(entry, entries) for entry in models}
    notes += [
        f"{base} reads {lengths[base]} tokens of a text, {name} {lengths[name]}"
        for name, base in bases.items()
        if base in lengths and lengths[base] != lengths[name]
    ]
    return BenchmarkTable(metric, tuple(_ranked(_compared(rows, scores, bases, metric), tasks)), tuple(notes), scores)


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    if not names:
        raise InputError(f"no {what} to benchmark, expected at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{what} {twice[0]!r} is named twice, expected different ones")


def _with_bases(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """The models, and each of their bases that is not among them."""
    entries = list(models)
    for model in models:
        if model.base is not None and not any(same_model(model.base, entry.location) for entry in entries):
            entries.append(ModelEntry(model.base, model.base, revision=model.base_revision))
    return entries


def _base_name(model: ModelEntry, entries: Sequence[ModelEntry]) -> str | None:
    if model.base is None:
        return None
    return next(entry.name for entry in entries if same_model(model.base, entry.location))


def _load(entry: ModelEntry, named: Sequence[ModelEntry], load: Loader, notes: list[str]) -> SentenceTransformer | None:
    """Load a model; one that is optional, or a base that nobody named, becomes a note where it cannot be had."""
    try:
        model = load(entry.location, entry.revision)
    except InputError as error:
        if entry.optional:
            notes.append(f"left out {entry.name}: {error}")
            return None
        if entry in named:
            raise
        notes.append(f"no comparison with base {entry.name}: {error}")
        return None
    for tuned in named:
        if tuned.base is not None and same_model(tuned.base, entry.location):
            _align(model, entry, tuned, notes)
    return model


def _size(model: SentenceTransformer, task: RetrievalTask, batch_size: int) -> dict[str, Any]:
    """A row's parameters and speed."""
    (speed,) = measure_speed(model, list(task.corpus.values()), (SPEED_TOKENS,), batch_size) or (None,)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "texts_per_second": speed.texts_per_second if speed else None}


def _align(model: SentenceTransformer, base: ModelEntry, tuned: ModelEntry, notes: list[str]) -> None:
    """Give a base the prompts of its fine-tuned model where it has none; note where it has others."""
    prompts = saved_prompts(tuned.location)
    own = {role: text for role, text in model.prompts.items() if text}
    if prompts and not own:
        model.prompts.update(prompts)
        notes.append(f"base {base.name} has no prompts of its own, so it got those of {tuned.name}")
    elif prompts != own:
        notes.append(f"{base.name} and {tuned.name} have different prompts: {own} and {prompts}")


def _row(
    entry: ModelEntry,
    task: RetrievalTask,
    scores: Scores,
    metric: str,
    dimensions: int,
    details: Mapping[str, object] | None,
) -> ModelRow:
    return ModelRow(
        task=task.name,
        model=entry.name,
        queries=len(scores.query_ids),
        groups=len(set(scores.groups)),
        dimensions=dimensions,
        score=scores.means[metric],
        standard_error=scores.standard_error(metric),
        scores=scores.means,
        details=details,
    )


def _compared(
    rows: Sequence[ModelRow], scores: Mapping[tuple[str, str], Scores], bases: Mapping[str, str | None], metric: str
) -> list[ModelRow]:
    """The rows with their comparisons; p-values corrected over all of them."""
    comparisons: dict[tuple[str, str], Comparison] = {}
    for row in rows:
        base = bases.get(row.model)
        if base is not None and (row.task, base) in scores and row.groups > 1:
            before, after = scores[row.task, base], scores[row.task, row.model]
            comparisons[row.task, row.model] = compare(before, after, metric)
    adjusted = dict(zip(comparisons, holm([c.p_value for c in comparisons.values()]), strict=True))
    return [
        replace(
            row,
            base=bases.get(row.model),
            comparison=comparisons.get((row.task, row.model)),
            p_holm=adjusted.get((row.task, row.model)),
        )
        for row in rows
    ]


def _ranked(rows: Sequence[ModelRow], tasks: Sequence[RetrievalTask]) -> list[ModelRow]:
    place = {task.name: index for index, task in enumerate(tasks)}
    return sorted(rows, key=lambda row: (place[row.task], -row.score, row.model))
