"""Pairs and passages of folders in BEIR's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.errors import InputError
from evaluation.task import RetrievalTask
from trainables.data.config import DataConfig, Files
from trainables.data.rows import PART_NAMES, RawRow


def read_beir(folder: Path, part: str) -> Iterator[RawRow]:
    """Rows with `anchor`, `positive`, the grade (1 or more) and the part of the qrels file they stand in.

    `line` counts the judgements of a qrels file.

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
                    yield RawRow(f"{folder.name}/qrels/{split}.tsv", line, PART_NAMES[split], cells, grade)


def beir_folders(config: DataConfig, folder: Path) -> list[tuple[Path, str]]:
    """The BEIR folders among the sources, each with the part that is taken of it (empty: all of its parts)."""
    if isinstance(config.source, str):
        named = [(config.source, "")]
    elif isinstance(config.source, Files):
        named = [(name, part) for part, name in config.source.model_dump().items() if name is not None]
    else:
        named = []
    return [(folder / name, part) for name, part in named if (folder / name / "corpus.jsonl").is_file()]
