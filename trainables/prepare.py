"""Prepare a run's data folder: read the source, check it, split it, and write what the search loads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from evaluation.errors import InputError
from evaluation.files import aside, write_whole
from trainables.bases.token_counts import TokenCounter
from trainables.check.check import check_source
from trainables.data.beir import beir_folders
from trainables.data.config import DataConfig
from trainables.data.corpus import ANSWERS, CORPUS, Row, judgements, write_corpus
from trainables.data.pairs import GROUP_PREFIX, read_pairs
from trainables.data.prepared import DEV_POOL, DISTRACTORS, OLD_TEST, REPORT, load_report
from trainables.data.report import DataReport
from trainables.data.rows import PARTS, Pair
from trainables.data.sources import read_once
from trainables.data.splits import DEV, LEFT_OUT
from trainables.data.survey import DUPLICATE, Survey

# Passages that a pool takes for each dev question. Of 2,000 passages, with 10 or 20 trained models score up to 0.013 or
# 0.004 too high and trade places, with 50 no longer (benchmarks/results/dev_pool.json); a larger corpus has more that
# the bases rank lower, hence twice that.
POOL_DEPTH = 100
POOL_GAIN = 2  # a pool is made where it is at least so many times smaller than the corpus, whatever the bases find


@read_once()
def prepare(
    config: DataConfig,
    folder: Path,
    seed: int,
    out: Path,
    *,
    earlier: Path | None = None,
    tokens: TokenCounter | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataReport:
    """Read, check and split the source: writes train.jsonl, dev.jsonl, test.jsonl and, last, report.json.

    Each line of a part holds anchor, positive, negatives, concept, kind, domain, grade and where the row came from.
    Rows without a concept get the name of their group, so that each line has one. What dev and test search is beside
    them: see trainables/data/corpus.py.

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
    found, report = check_source(config, folder, seed, earlier=earlier, tokens=tokens, progress=progress)
    if found is None or report.unusable is not None:
        raise InputError(f"data: {report.unusable}")
    out.mkdir(parents=True, exist_ok=True)
    for stale in (CORPUS, DISTRACTORS, DEV_POOL, f"{OLD_TEST}.jsonl"):
        (out / stale).unlink(missing_ok=True)
    report.content_hash = _write_parts(config, folder, earlier, out, found)
    report.judged = bool(beir_folders(config, folder)) or (earlier is not None and bool(load_report(earlier).judged))
    if earlier is not None:
        write_whole(out / f"{OLD_TEST}.jsonl", (earlier / "test.jsonl").read_text("utf-8"))
    if config.distractors:
        questions = len(np.unique(found.anchors_N[found.parts_N == DEV]))
        if write_corpus(config, folder, earlier, out) >= POOL_GAIN * POOL_DEPTH * questions:
            report.pool_depth = POOL_DEPTH
    write_whole(out / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _write_parts(config: DataConfig, folder: Path, earlier: Path | None, out: Path, found: Survey) -> str:
    """Write the parts and what else says what answers what. Returns the hash of the parts' lines."""
    digest = hashlib.sha256()
    dropped_M = found.dropped_negatives
    negatives = 0  # position in it
    with ExitStack() as stack:
        names = (*(f"{part}.jsonl" for part in PARTS), ANSWERS)
        *files, answers = [stack.enter_context(stack.enter_context(aside(out / name)).open("wb")) for name in names]
        pairs = (pair for pair in read_pairs(config, folder, earlier) if isinstance(pair, Pair))
        for number, pair in enumerate(pairs):
            dropped = dropped_M[negatives : negatives + len(pair.negatives)]
            negatives += len(pair.negatives)
            part = found.parts_N[number]
            if part == LEFT_OUT and found.reasons_N[number] == DUPLICATE:
                continue
            kept = [text for text, gone in zip(pair.negatives, dropped, strict=True) if not gone]
            line = _line(pair, kept, number, found)
            (answers if part == LEFT_OUT else files[part]).write(_json(line))
            if part != LEFT_OUT:
                digest.update(bytes([part]) + _json(line))
        for row in judgements(config, folder):
            answers.write(_json(row))
    return digest.hexdigest()


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
