"""Prepare a run's data folder, and load it: training pairs for a trial, retrieval tasks for dev and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from evaluation.errors import InputError
from evaluation.files import aside, read_json, read_jsonl, write_whole
from evaluation.task import Protocol, RetrievalTask, fold
from trainables.check.check import DataReport, Tokens, check
from trainables.corpus import ANSWERS, CORPUS, Row, judgements, means_a_concept, part_task, read_corpus, write_corpus
from trainables.data.beir import beir_folders
from trainables.data.config import DataConfig
from trainables.data.rows import PARTS, Pair
from trainables.data.splits import DEV, LEFT_OUT
from trainables.data.survey import DUPLICATE, GROUP_PREFIX, Survey, read_pairs

REPORT = "report.json"
DISTRACTORS = "distractors.jsonl"  # of runs of earlier versions: passages of a BEIR corpus that answer no query
DEV_POOL = "dev_pool.json"  # made by trainables/dev_pool.py
OLD_TEST = "old_test"
# Passages that a pool takes for each dev question. Of 2,000 passages, with 10 or 20 trained models score up to 0.013 or
# 0.004 too high and trade places, with 50 no longer (benchmarks/results/dev_pool.json); a larger corpus has more that
# the bases rank lower, hence twice that.
POOL_DEPTH = 100
POOL_GAIN = 2  # a pool is made where it is at least so many times smaller than the corpus, whatever the bases find
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


def prepare(
    config: DataConfig,
    folder: Path,
    seed: int,
    out: Path,
    *,
    earlier: Path | None = None,
    tokens: Tokens | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataReport:
    """Read, check and split the source: writes train.jsonl, dev.jsonl, test.jsonl and, last, report.json.

    Each line of a part holds anchor, positive, negatives, concept, kind, domain, grade and where the row came from.
    Rows without a concept get the name of their group, so that each line has one. What dev and test search is beside
    them: see trainables/corpus.py.

    Bringing jargon in step by step: with `earlier`, the rows of an earlier run come first and keep their parts. New
    rows of its concepts go where these are, so an old test concept stays test; other new concepts are split as
    always. Its test part is kept as old_test.jsonl as well, and load_task(out, "old_test") tells what was forgotten.

    Args:
        config: the `data:` section.
        folder: where its relative paths start, the spec's folder.
        seed: of the split.
        out: the run's data folder.
        earlier: data folder of the run that this one continues.
        tokens, progress: see trainables/check/check.py.

    Raises:
        InputError: the data cannot be used; the message is the report's `unusable`.
    """
    if earlier is not None:
        load_report(earlier)  # refuses a folder that is not whole
    found, report = check(config, folder, seed, earlier=earlier, tokens=tokens, progress=progress)
    if found is None or report.unusable is not None:
        raise InputError(f"data: {report.unusable}")
    out.mkdir(parents=True, exist_ok=True)
    for stale in (CORPUS, DISTRACTORS, DEV_POOL, f"{OLD_TEST}.jsonl"):
        (out / stale).unlink(missing_ok=True)
    _write_parts(config, folder, earlier, out, found, report)
    report.judged = bool(beir_folders(config, folder)) or (earlier is not None and bool(load_report(earlier).judged))
    if earlier is not None:
        write_whole(out / f"{OLD_TEST}.jsonl", (earlier / "test.jsonl").read_text("utf-8"))
    if config.distractors:
        questions = len(np.unique(found.anchors_N[found.parts_N == DEV]))
        if write_corpus(config, folder, earlier, out) >= POOL_GAIN * POOL_DEPTH * questions:
            report.pool_depth = POOL_DEPTH
    write_whole(out / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _write_parts(
    config: DataConfig, folder: Path, earlier: Path | None, out: Path, found: Survey, report: DataReport
) -> None:
    """Write the parts and what else says what answers what, and note the hashes of the parts' lines."""
    digest, ungraded = hashlib.sha256(), hashlib.sha256()
    negatives = 0  # position in found.false_negatives_M
    with ExitStack() as stack:
        names = (*(f"{part}.jsonl" for part in PARTS), ANSWERS)
        *files, answers = [stack.enter_context(stack.enter_context(aside(out / name)).open("wb")) for name in names]
        pairs = (pair for pair in read_pairs(config, folder, earlier) if isinstance(pair, Pair))
        for number, pair in enumerate(pairs):
            false = found.false_negatives_M[negatives : negatives + len(pair.negatives)]
            negatives += len(pair.negatives)
            part = found.parts_N[number]
            if part == LEFT_OUT and found.reasons_N[number] == DUPLICATE:
                continue
            kept = [text for text, wrong in zip(pair.negatives, false, strict=True) if not wrong]
            line = _line(pair, kept, number, found)
            (answers if part == LEFT_OUT else files[part]).write(_json(line))
            if part != LEFT_OUT:
                bare = bytes([part]) + _json({name: value for name, value in line.items() if name != "grade"})
                ungraded.update(bare)
                # Grades of 1 leave the hash as it was before lines held them, so that such runs can be resumed.
                digest.update(bare if pair.grade == 1 else bytes([part]) + _json(line))
        for row in judgements(config, folder):
            answers.write(_json(row))
    report.content_hash, report.ungraded_hash = digest.hexdigest(), ungraded.hexdigest()


def _json(line: Row) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _line(pair: Pair, negatives: list[str], number: int, found: Survey) -> Row:
    # A group is named after its first passage, so that the name stays when rows are added after it.
    concept = pair.concept if pair.concept is not None else f"{GROUP_PREFIX}{found.group_names_N[number]:016x}"
    return {
        "anchor": pair.anchor,
        "positive": pair.positive,
        "negatives": negatives,
        "concept": concept,
        "kind": pair.kind,
        "domain": pair.domain,
        "grade": pair.grade,
        "row": f"{pair.file}:{pair.line}",
    }


@dataclass(frozen=True)
class TrialData:
    """What a trial may see: the training pairs and the dev task. The test part is not among them.

    Attributes:
        train: columns anchor, positive, negatives (a list, empty where there are none), concept, kind, domain.
        dev: the task that chooses between trials; over the pool where one was made (trainables/dev_pool.py).
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
        pool = read_pool(out)
        dev = load_task(out, "dev", only=None if pool is None else frozenset(pool["passages"]))
        rows = list(_rows(out, "train"))
        train = Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
        return cls(train, dev, out, report.content_hash)


def load_report(out: Path) -> DataReport:
    """The report of a data folder. It is written last, so its existence means that the rest is there."""
    path = out / REPORT
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run's data folder that was prepared to the end")
    return DataReport.model_validate_json(path.read_text(encoding="utf-8"))


def read_pool(out: Path) -> dict[str, Any] | None:
    """What dev_pool.json holds; none: dev evaluations search the whole corpus."""
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
        protocol: concept or definition; none: the data's own.
        only: ids of the passages that are searched, all that are relevant among them; none: the whole corpus.

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
