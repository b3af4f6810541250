"""Prepare a run's data folder, and load it: training pairs for a trial, retrieval tasks for dev and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from evaluation.errors import InputError
from evaluation.files import aside, write_whole
from evaluation.task import Protocol, RetrievalTask, read_jsonl
from trainables.check import DataReport, check
from trainables.data_config import DataConfig
from trainables.rows import PARTS, Pair
from trainables.splits import LEFT_OUT
from trainables.survey import Survey, read_pairs

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


def prepare(config: DataConfig, folder: Path, seed: int, out: Path) -> DataReport:
    """Read, check and split the source: writes train.jsonl, dev.jsonl, test.jsonl and, last, report.json.

    Each line of a part holds anchor, positive, negatives, concept, kind, domain and where the row came from. Rows
    without a concept get the name of their group, so that each line has one.

    Args:
        config: the `data:` section.
        folder: where its relative paths start, the spec's folder.
        seed: of the split.
        out: the run's data folder.

    Raises:
        InputError: the data cannot be used; the message is the report's `unusable`.
    """
    found, report = check(config, folder, seed)
    if report.unusable is not None:
        raise InputError(report.unusable)
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with ExitStack() as stack:
        files = [stack.enter_context(stack.enter_context(aside(out / f"{p}.jsonl")).open("wb")) for p in PARTS]
        for number, pair in enumerate(pair for pair in read_pairs(config, folder) if isinstance(pair, Pair)):
            part = found.parts_N[number]
            if part != LEFT_OUT:
                line = json.dumps(_line(pair, number, found), ensure_ascii=False).encode() + b"\n"
                files[part].write(line)
                digest.update(bytes([part]) + line)
    report = report.model_copy(update={"content_hash": digest.hexdigest()})
    write_whole(out / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def _line(pair: Pair, number: int, found: Survey) -> dict[str, Any]:
    concept = pair.concept
    if concept is None:
        # Named after a passage, so that the name stays when rows are added after it.
        concept = f"group-{found.group_names_N[number]:016x}"
    return {
        "anchor": pair.anchor,
        "positive": pair.positive,
        "negatives": list(pair.negatives),
        "concept": concept,
        "kind": pair.kind,
        "domain": pair.domain,
        "row": f"{pair.file}:{pair.line}",
    }


@dataclass(frozen=True)
class TrialData:
    """What a trial may see: the training pairs and the dev task. The test part is not among them.

    Attributes:
        train: columns anchor, positive, negatives (a list, empty where there are none), concept, kind, domain.
        dev: the task that chooses between trials.
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
        return cls(_rows(out, "train"), load_task(out, "dev"), out, report.content_hash)


def load_report(out: Path) -> DataReport:
    """The report of a data folder. It is written last, so its existence means that the rest is there."""
    path = out / "report.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run's data folder that was prepared to the end")
    return DataReport.model_validate_json(path.read_text(encoding="utf-8"))


def load_task(out: Path, part: str, protocol: Protocol | None = None) -> RetrievalTask:
    """The retrieval task of a part.

    Its corpus is the part's distinct passages; where the data's `distractors` is true, those of all parts.

    Args:
        out: the run's data folder.
        part: train, dev or test.
        protocol: concept or definition; none: the data's own.
    """
    if part not in PARTS:
        raise InputError(f"part {part!r}, expected one of {', '.join(PARTS)}")
    config = load_report(out).config
    own = _rows(out, part)
    others: Iterable[str] = ()
    if config.distractors:
        others = [text for other in PARTS if other != part for text in _rows(out, other)["positive"]]
    return RetrievalTask.from_pairs(
        part, own["anchor"], own["positive"], own["concept"], own["kind"], protocol or config.protocol, tuple(others)
    )


def _rows(out: Path, part: str) -> Dataset:
    rows = [row for _, row in read_jsonl(out / f"{part}.jsonl")]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
