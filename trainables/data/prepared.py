"""Prepare a run's data folder, and load it: training pairs for a trial, retrieval tasks for dev and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from evaluation.errors import InputError
from evaluation.files import aside, write_whole
from evaluation.task import Protocol, RetrievalTask, read_jsonl
from trainables.check.check import DataReport, Tokens, check
from trainables.data.beir import beir_passages
from trainables.data.config import DataConfig
from trainables.data.rows import PARTS, Pair
from trainables.data.splits import LEFT_OUT
from trainables.data.survey import GROUP_PREFIX, Survey, read_pairs

REPORT = "report.json"
DISTRACTORS = "distractors.jsonl"  # passages of a BEIR corpus that answer no query
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

    Each line of a part holds anchor, positive, negatives, concept, kind, domain and where the row came from. Rows
    without a concept get the name of their group, so that each line has one.

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
    report.content_hash = _write_parts(config, folder, earlier, out, found)
    extra = beir_passages(config, folder) if config.distractors else []
    optional = {
        DISTRACTORS: [json.dumps({"positive": text}, ensure_ascii=False) for text in extra],
        f"{OLD_TEST}.jsonl": [] if earlier is None else (earlier / "test.jsonl").read_text("utf-8").split("\n")[:-1],
    }
    for name, lines in optional.items():
        if lines:
            write_whole(out / name, "\n".join(lines) + "\n")
        else:
            (out / name).unlink(missing_ok=True)
    write_whole(out / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _write_parts(config: DataConfig, folder: Path, earlier: Path | None, out: Path, found: Survey) -> str:
    """Write the parts and return the hash of their lines."""
    digest = hashlib.sha256()
    negatives = 0  # position in found.false_negatives_M
    with ExitStack() as stack:
        files = [stack.enter_context(stack.enter_context(aside(out / f"{p}.jsonl")).open("wb")) for p in PARTS]
        pairs = (pair for pair in read_pairs(config, folder, earlier) if isinstance(pair, Pair))
        for number, pair in enumerate(pairs):
            false = found.false_negatives_M[negatives : negatives + len(pair.negatives)]
            negatives += len(pair.negatives)
            part = found.parts_N[number]
            if part != LEFT_OUT:
                kept = [text for text, wrong in zip(pair.negatives, false, strict=True) if not wrong]
                line = json.dumps(_line(pair, kept, number, found), ensure_ascii=False).encode() + b"\n"
                files[part].write(line)
                digest.update(bytes([part]) + line)
    return digest.hexdigest()


def _line(pair: Pair, negatives: list[str], number: int, found: Survey) -> dict[str, Any]:
    # A group is named after its first passage, so that the name stays when rows are added after it.
    concept = pair.concept if pair.concept is not None else f"{GROUP_PREFIX}{found.group_names_N[number]:016x}"
    return {
        "anchor": pair.anchor,
        "positive": pair.positive,
        "negatives": negatives,
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
    path = out / REPORT
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run's data folder that was prepared to the end")
    return DataReport.model_validate_json(path.read_text(encoding="utf-8"))


def load_task(out: Path, part: str, protocol: Protocol | None = None) -> RetrievalTask:
    """The retrieval task of a part.

    Its corpus is the part's distinct passages. Where the data's `distractors` is true, it is those of all parts, and
    for a BEIR folder the rest of its corpus.

    Args:
        out: the run's data folder.
        part: train, dev, test, or old_test: the test part of the run that this one continues.
        protocol: concept or definition; none: the data's own.

    Raises:
        InputError: no such part.
    """
    if part not in (*PARTS, OLD_TEST) or not (out / f"{part}.jsonl").is_file():
        raise InputError(f"{out}: no part {part!r}, expected one of {', '.join(PARTS)}, or {OLD_TEST} where it is")
    config = load_report(out).config
    own = _rows(out, part)
    others: list[str] = []
    if config.distractors:
        own_concepts = set(own["concept"])  # new rows of an old test concept stand in test: they answer its queries
        others = [
            text
            for other in PARTS
            if other != part
            for text, concept in zip(*(_rows(out, other)[name] for name in ("positive", "concept")), strict=True)
            if concept not in own_concepts
        ]
        if (out / DISTRACTORS).is_file():
            others += [row["positive"] for _, row in read_jsonl(out / DISTRACTORS)]
    return RetrievalTask.from_pairs(
        part,
        anchors=list(own["anchor"]),
        positives=list(own["positive"]),
        concepts=list(own["concept"]),
        kinds=list(own["kind"]),
        protocol=protocol or config.protocol,
        distractors=others,
    )


def _rows(out: Path, part: str) -> Dataset:
    rows = [row for _, row in read_jsonl(out / f"{part}.jsonl")]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)
