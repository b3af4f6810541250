"""Load a prepared data folder: training pairs for a trial, retrieval tasks for dev and test."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from evaluation.errors import InputError
from evaluation.files import read_json, read_jsonl
from evaluation.task import Protocol, RetrievalTask, fold
from trainables.data.corpus import (
    ANSWERS,
    Row,
    means_a_concept,
    part_task,
    read_corpus,
)
from trainables.data.report import DataReport
from trainables.data.rows import PARTS

REPORT = "report.json"
DISTRACTORS = "distractors.jsonl"  # of runs of earlier versions: passages of a BEIR corpus that answer no query
DEV_POOL = "dev_pool.json"  # made by trainables/data/dev_pool.py
OLD_TEST = "old_test"
FEATURES = Features(
    {
        "anchor": Value("string"),
        "positive": Value("string"),
        "negatives": List(Value("string")),
        "concept": Value("string"),
        "kind": Value("string"),
        "domain": Value("string"),
    }
)


@dataclass(frozen=True)
class TrialData:
    """What a trial may see: the training pairs and the dev task. The test part is not among them.

    Attributes:
        train: columns anchor, positive, negatives (a list, empty where there are none), concept, kind, domain.
        dev: the task that chooses between trials; over the pool where one was made (trainables/data/dev_pool.py).
        folder: the run's data folder.
        content_hash: of the parts' lines; caches are keyed by it.
    """

    train: Dataset
    dev: RetrievalTask
    folder: Path
    content_hash: str

    @classmethod
    def load(cls, out: Path) -> TrialData:
        """Load what `prepare` wrote.

        Raises:
            InputError: the folder is not whole.
        """
        report = load_report(out)
        dev = load_dev(out)
        rows = list(_rows(out, "train"))
        train = Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
        return cls(train, dev, out, report.content_hash)


def load_dev(out: Path) -> RetrievalTask:
    """The task that chooses between trials: dev, over the pool where one was made (trainables/data/dev_pool.py)."""
    pool = read_pool(out)
    return load_task(out, "dev", only=None if pool is None else frozenset(pool["passages"]))


def load_report(out: Path) -> DataReport:
    """The report of a data folder. It is written last, so its existence means that the rest is there."""
    path = out / REPORT
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run's data folder that was prepared to the end")
    return DataReport.model_validate_json(path.read_text(encoding="utf-8"))


def read_pool(out: Path) -> dict[str, Any] | None:
    """What dev_pool.json holds; None: dev evaluations search the whole corpus."""
    path = out / DEV_POOL
    return read_json(path) if path.is_file() else None


def load_task(
    out: Path, part: str, protocol: Protocol | None = None, only: Collection[str] | None = None
) -> RetrievalTask:
    """The retrieval task of a part.

    Its corpus is every passage of all parts and, for a BEIR folder, the rest of its corpus: the same passages under the
    same ids in each part. Where the data's `distractors` is false, it is the part's distinct passages.

    Args:
        out: the run's data folder.
        part: train, dev, test, or old_test: the test part of the run that this one continues, judged as it was there.
        protocol: concept or definition; None: the data's own.
        only: ids of the passages that are searched, all that are relevant among them; None: the whole corpus.

    Raises:
        InputError: no such part.
    """
    if part not in (*PARTS, OLD_TEST) or not (out / f"{part}.jsonl").is_file():
        raise InputError(f"{out}: no part {part!r}, expected one of {', '.join(PARTS)}, or {OLD_TEST} where it is")
    report = load_report(out)
    config, protocol = report.config, protocol or report.config.protocol
    if report.judged is None:
        return _earlier_task(out, part, protocol, config.distractors)
    own = list(_rows(out, part))
    corpus = read_corpus(out, only) if config.distractors else _own_corpus(own)
    if part != OLD_TEST:
        return part_task(part, own, _other_rows(out, part), corpus, protocol, judged=report.judged)
    concepts = {row["concept"] for row in own if means_a_concept(row["concept"], report.judged)}
    texts = {fold(row["positive"]) for row in own}
    others: list[Row] = []
    added: set[str] = set()  # passages that the new rows give to its concepts: neither right nor wrong there
    for row in _other_rows(out, part):
        if row["concept"] not in concepts:
            others.append(row)
        elif fold(row["positive"]) not in texts:
            added.add(fold(row["positive"]))
    corpus = {i: text for i, text in corpus.items() if fold(text) not in added}
    return part_task(part, own, others, corpus, protocol, judged=report.judged)


def _own_corpus(rows: list[Row]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in rows:
        texts.setdefault(fold(row["positive"]), row["positive"].strip())
    return {f"p{at}": text for at, text in enumerate(texts.values())}


def _rows(out: Path, name: str) -> Iterator[Row]:
    return (row for _, row in read_jsonl(out / f"{name}.jsonl"))


def _other_rows(out: Path, part: str) -> Iterator[Row]:
    return chain(*(_rows(out, other) for other in PARTS if other != part), _rows(out, Path(ANSWERS).stem))


def _earlier_task(out: Path, part: str, protocol: Protocol, distractors: bool) -> RetrievalTask:
    """As versions built it that wrote no corpus.jsonl: the scores and ids of their runs are of this task."""
    own = list(_rows(out, part))
    others: list[str] = []
    if distractors:
        concepts = {row["concept"] for row in own}
        others = [
            row["positive"]
            for other in PARTS
            if other != part
            for row in _rows(out, other)
            if row["concept"] not in concepts
        ]
        if (out / DISTRACTORS).is_file():
            others += [row["positive"] for row in _rows(out, Path(DISTRACTORS).stem)]
    anchors, positives, concept_names, kinds = (
        [row[name] for row in own] for name in ("anchor", "positive", "concept", "kind")
    )
    return RetrievalTask.from_pairs(part, anchors, positives, concept_names, kinds, protocol, distractors=others)
