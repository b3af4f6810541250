"""Retrieval tasks of MTEB by name, through the optional `mteb` package, as RetrievalTasks.

Only the data is taken from MTEB: the ranking, the scores and their comparison are this package's own, so that a row of
an MTEB task can be read beside any other. Instructions that MTEB gives to some models by name are not used: a model is
evaluated with the prompts that it carries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.errors import InputError
from evaluation.task import BEIR_SPLITS, RetrievalTask, named

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


def load_mteb(name: str) -> list[RetrievalTask]:
    """A task of MTEB by its name, such as SyntecRetrieval; its data comes from the Hugging Face hub.

    Raises:
        InputError: `mteb` is not installed, no such task, not a retrieval task, data that cannot be had.
    """
    try:
        import mteb
    except ImportError:
        raise InputError(f"MTEB task {name}: needs the package mteb: pip install 'embtune[mteb]'") from None
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise InputError(f"MTEB task {name}: not known to mteb {mteb.__version__}: {str(error)[:200]}") from None
    return from_mteb(task)


def from_mteb(task: AbsTask) -> list[RetrievalTask]:
    """One RetrievalTask for each subset (language) of an MTEB retrieval task, on its first evaluation split.

    Raises:
        InputError: not a retrieval task, or its data cannot be had.
    """
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    name = task.metadata.name
    if not isinstance(task, AbsTaskRetrieval):
        raise InputError(f"MTEB task {name}: of type {task.metadata.type}, expected a retrieval task")
    if task.ignore_identical_ids or task.skip_first_result:
        raise InputError(
            f"MTEB task {name}: its rules pass over a query's own text in the corpus, expected a plain ranking"
        )
    try:
        task.load_data()
    except (OSError, ValueError) as error:
        raise InputError(f"MTEB task {name}: its data cannot be had ({str(error).splitlines()[0][:200]})") from None
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    tasks = []
    for subset, splits in task.dataset.items():
        split = next((s for s in (*BEIR_SPLITS, *splits) if s in splits), None)
        if split is None:
            raise InputError(f"MTEB task {name}, subset {subset}: no split, expected at least one")
        label = f"{name}/{split}" if subset == "default" else f"{name}/{subset}/{split}"
        tasks.append(_convert(label, splits[split]))
    return tasks


def _convert(label: str, data: Any) -> RetrievalTask:
    if data["top_ranked"] or "text" not in data["corpus"].column_names:
        raise InputError(
            f"MTEB task {label}: reranks given passages or has no texts, expected a search in a text corpus"
        )
    corpus = {row["id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in data["corpus"]}
    queries = {row["id"]: row["text"] for row in data["queries"]}
    judged = {q: {p: int(g) for p, g in grades.items()} for q, grades in data["relevant_docs"].items() if q in queries}
    kept = [q for q in queries if any(grade > 0 for grade in judged.get(q, {}).values())]
    without = [q for q in queries if q not in set(kept)]
    return RetrievalTask(
        name=label,
        corpus=corpus,
        queries={q: queries[q] for q in kept},
        qrels={q: judged[q] for q in kept},
        left_out=(f"left out {named(without)}: no relevant passage",) if without else (),
    )
