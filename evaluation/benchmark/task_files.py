"""Tasks that a user names: a BEIR folder, or a JSONL file of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.errors import InputError
from evaluation.files import read_jsonl, text_of
from evaluation.task import BEIR_SPLITS, Protocol, RetrievalTask, fold, named


def load_tasks(
    path: str | Path, split: str | None = None, protocols: Sequence[Protocol] = ("concept",)
) -> list[RetrievalTask]:
    """The tasks of a folder or file: one of a BEIR folder, one for each protocol of a file of pairs.

    The names of the tasks say which split was taken: the one asked for, else the first there is of test, dev,
    validation, train. Rows of pairs without a `split` are one part and their task is named after the file alone.

    Raises:
        InputError: neither a folder nor a .jsonl file, or what the two readers refuse.
    """
    path = Path(path)
    if path.is_dir():
        return [RetrievalTask.load_beir(path, split)]
    if path.is_file() and path.suffix == ".jsonl":
        return load_pairs(path, split, protocols)
    raise InputError(f"task {path}: expected a BEIR folder or a .jsonl file of pairs")


def load_pairs(
    path: Path, split: str | None = None, protocols: Sequence[Protocol] = ("concept",)
) -> list[RetrievalTask]:
    """Read rows with `anchor`, `positive` and, where there are any, `cluster_id` (or `concept`), `kind`, `split` and
    `negative` (a text or a list of them: the task's triplets).

    Without concepts, rows with one passage are one concept.

    Raises:
        InputError: a row without its columns, a split that is not there, definitions asked for in rows without kinds.
    """
    rows = list(read_jsonl(path))
    if not rows:
        raise InputError(f"{path}: no rows, expected pairs with anchor and positive")
    splits = {str(row["split"]) for _, row in rows if "split" in row}
    label = path.stem
    without: list[str] = []
    if split is not None and split not in splits:
        there = ", ".join(sorted(splits)) or "none: no row has a split"
        raise InputError(f"{path}: no rows of split {split!r}, expected one of {there}")
    if splits:
        split = split or next((s for s in BEIR_SPLITS if s in splits), min(splits))
        without = [f"line {where.rpartition(':')[2]}" for where, row in rows if "split" not in row]
        rows = [(where, row) for where, row in rows if str(row.get("split")) == split]
        label = f"{label}/{split}"

    key = next((name for name in ("cluster_id", "concept") if name in rows[0][1]), None)
    anchors = [text_of(where, row, "anchor") for where, row in rows]
    positives = [text_of(where, row, "positive") for where, row in rows]
    concepts = [text_of(where, row, key) if key else fold(str(row["positive"])) for where, row in rows]
    kinds = [row.get("kind") for _, row in rows]
    if "definition" in protocols and "definition" not in kinds:
        raise InputError(f"{path}: the definition protocol needs rows whose kind is definition, found none")
    triplets = [
        (anchor, positive, negative)
        for (where, row), anchor, positive in zip(rows, anchors, positives, strict=True)
        for negative in _negatives(where, row)
    ]
    tasks = []
    for protocol in protocols:
        name = label if len(protocols) == 1 else f"{label} ({protocol})"
        task = RetrievalTask.from_pairs(name, anchors, positives, concepts, kinds, protocol)
        left_out = (f"left out {named(without, 'row')}: no split, where others have one",) if without else ()
        tasks.append(replace(task, left_out=(*left_out, *task.left_out), triplets=tuple(triplets)))
    return tasks


def _negatives(where: str, row: dict[str, Any]) -> list[str]:
    value = row.get("negative", row.get("negatives"))
    negatives = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(negative, str) for negative in negatives):
        raise InputError(f"{where}: key 'negative' is {value!r}, expected a text or a list of texts")
    return negatives
