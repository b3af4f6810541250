"""Pairs from a folder in BEIR's layout: each judged query with each of its relevant passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.errors import InputError
from evaluation.task import RetrievalTask
from trainables.data.config import DataConfig
from trainables.data.rows import PART_NAMES, RawRow


def read_beir(folder: Path, part: str) -> Iterator[RawRow]:
    """Rows with `anchor`, `positive` and the part of the qrels file they stand in.

    Grades above 0 are all relevant: a pair has no grade. `line` counts the judgements of a qrels file.

    Args:
        folder: corpus.jsonl, queries.jsonl and qrels/train.tsv, dev.tsv, test.tsv (those that are there).
        part: take this part only; empty: all.

    Raises:
        InputError: what RetrievalTask.load_beir finds wrong, or no qrels file of a known name.
    """
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    known = [split for split in splits if PART_NAMES.get(split, part) and part in ("", PART_NAMES.get(split))]
    if not known:
        wanted = f"{part}.tsv" if part else "train.tsv, dev.tsv or test.tsv"
        raise InputError(f"{folder}/qrels: has {', '.join(splits) or 'no .tsv file'}, expected {wanted}")
    for split in known:
        task = RetrievalTask.load_beir(folder, split)
        line = 0
        for query, grades in task.qrels.items():
            for passage, grade in grades.items():
                line += 1
                if grade > 0:
                    cells = {"anchor": task.queries[query], "positive": task.corpus[passage]}
                    yield RawRow(f"{folder.name}/qrels/{split}.tsv", line, PART_NAMES[split], cells)


def beir_passages(config: DataConfig, folder: Path) -> list[str]:
    """Every passage of the corpus, where the source is a BEIR folder; else none."""
    if not isinstance(config.source, str) or not (folder / config.source / "corpus.jsonl").is_file():
        return []
    return list(RetrievalTask.load_beir(folder / config.source).corpus.values())
