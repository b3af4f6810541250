"""The guard: questions that nothing is tuned on and that have nothing to do with the data. What a model loses there
against its base, it has forgotten."""

from __future__ import annotations

from pathlib import Path

from evaluation.benchmark.task_files import load_tasks
from evaluation.errors import InputError
from evaluation.files import read_jsonl
from evaluation.task import RetrievalTask, fold, named
from search.paths import RunFolder
from search.spec.sections import GuardSpec

GENERAL = Path(__file__).parents[1] / "presets" / "general.jsonl"  # written for this: general knowledge, fr and en
SHOWN = 60  # characters of a text in an error


def load_guard(guard: GuardSpec, folder: Path) -> RetrievalTask:
    """The guard's questions over all of its passages.

    Args:
        folder: where a relative path starts, the spec's folder.

    Raises:
        InputError: neither a BEIR folder nor a .jsonl file of pairs, or not readable as one; a single concept.
    """
    path = GENERAL if guard.source is None else folder / guard.source
    try:
        (task,) = load_tasks(path)
    except InputError as error:
        raise InputError(f"guard.source: {error}") from None
    if len(set(task.groups.values())) < 2:
        raise InputError(f"guard.source: {path}: questions of one concept, expected at least two for an interval")
    return task


def refuse_shared(task: RetrievalTask, data: Path) -> None:
    """Hold the guard's texts against those that are trained and tuned on, white space folded: the questions, passages
    and negatives of the training and of the dev part.

    Args:
        data: a run's data folder.

    Raises:
        InputError: names the texts that are in both.
    """
    own = {fold(text) for text in (*task.queries.values(), *task.corpus.values())}
    found: dict[str, None] = {}
    rows = (row for part in ("train", "dev") for _, row in read_jsonl(data / f"{part}.jsonl"))
    for row in rows:
        for text in (row["anchor"], row["positive"], *row.get("negatives", ())):
            if fold(text) in own:
                found[fold(text)] = None
    if found:
        texts = [repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…") for text in found]
        raise InputError(
            f"guard.source: {task.name} shares {named(texts, 'text')} with the training or dev part; expected a "
            "guard that nothing is tuned on"
        )


def write_guard(guard: GuardSpec, folder: Path, run: RunFolder) -> None:
    """Put the guard beside the data of a run, so that the run needs no other file.

    Raises:
        InputError: as `load_guard` and `refuse_shared`.
    """
    task = load_guard(guard, folder)
    refuse_shared(task, run.data)
    task.save_beir(run.guard)
