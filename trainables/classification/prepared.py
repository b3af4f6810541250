"""A run's data folder with labelled parts: written from the source, loaded by trials."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError
from evaluation.files import aside, read_jsonl, write_whole
from trainables.bases.token_counts import TokenCounter
from trainables.classification.check import check_labelled
from trainables.classification.config import LabelledDataConfig
from trainables.classification.report import LabelReport
from trainables.classification.rows import Example, read_examples
from trainables.classification.task import LabelledTask, Text
from trainables.data.prepared import REPORT
from trainables.data.rows import PARTS, BadRow
from trainables.data.sources import read_once
from trainables.data.splits import LEFT_OUT, text_hash


@dataclass(frozen=True)
class LabelledData:
    """What a trial may see: the training rows and the dev part. The test part is not among them.

    Attributes:
        labels: names of the classes.
        texts: N training inputs, one text each or a pair.
        true_N: their classes.
        dev: the part that chooses between trials.
        content_hash: of the parts' lines.
    """

    labels: tuple[str, ...]
    texts: tuple[Text, ...]
    true_N: NDArray[np.int64]
    dev: LabelledTask
    content_hash: str

    @classmethod
    def load(cls, out: Path) -> LabelledData:
        """Load what `prepare_labelled` wrote.

        Raises:
            InputError: the folder is not whole.
        """
        train = load_labelled_task(out, "train")
        report = load_label_report(out)
        return cls(train.labels, train.texts, train.true_Q, load_labelled_task(out, "dev"), report.content_hash)


@read_once()
def prepare_labelled(
    config: LabelledDataConfig, folder: Path, seed: int, out: Path, *, tokens: TokenCounter | None = None
) -> LabelReport:
    """Read, check and split the source: writes train.jsonl, dev.jsonl, test.jsonl and, last, report.json.

    Each line holds text, text_pair (null of a single text), label, group and where the row came from.

    Args:
        config: the `data:` section.
        folder: where its relative paths start, the spec's folder.
        seed: of the split.
        out: the run's data folder.
        tokens: counts the lengths of inputs; None: lengths are in characters.

    Raises:
        InputError: the data cannot be used; the message is the report's `unusable`.
    """
    found, report = check_labelled(config, folder, seed, tokens)
    if report.unusable is not None:
        raise InputError(f"data: {report.unusable}")
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\0".join(report.labels).encode())
    with ExitStack() as stack:
        drafts = (stack.enter_context(aside(out / f"{part}.jsonl")) for part in PARTS)
        files = [stack.enter_context(draft.open("wb")) for draft in drafts]
        for row, example in enumerate(found.examples):
            part = found.parts_N[row]
            if part == LEFT_OUT:
                continue
            line = json.dumps(_line(example, found.group_names[found.groups_N[row]]), ensure_ascii=False).encode()
            files[part].write(line + b"\n")
            digest.update(bytes([part]) + line)
    report.content_hash = digest.hexdigest()
    write_whole(out / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def load_label_report(out: Path) -> LabelReport:
    """The report of a data folder. It is written last, so its existence means that the rest is there.

    Raises:
        InputError: there is none.
    """
    path = out / REPORT
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a run's data folder that was prepared to the end")
    return LabelReport.model_validate_json(path.read_text(encoding="utf-8"))


def load_labelled_task(out: Path, part: str) -> LabelledTask:
    """A part's examples.

    Raises:
        InputError: no such part.
    """
    if part not in PARTS:
        raise InputError(f"{out}: no part {part!r}, expected one of {', '.join(PARTS)}")
    labels = load_label_report(out).labels
    at = {label: number for number, label in enumerate(labels)}
    rows = [row for _, row in read_jsonl(out / f"{part}.jsonl")]
    return LabelledTask(
        name=part,
        labels=labels,
        ids=tuple(str(number) for number in range(len(rows))),
        texts=tuple(row["text"] if row["text_pair"] is None else (row["text"], row["text_pair"]) for row in rows),
        true_Q=np.array([at[row["label"]] for row in rows], dtype=np.int64),
        groups=tuple(row["group"] for row in rows),
    )


def require_same_examples(config: LabelledDataConfig, folder: Path, out: Path) -> None:
    """Refuse a source that has not the rows any more that it had when `out` was prepared.

    Raises:
        InputError: rows were added or taken away, a row of a part is not there any more, or the source cannot be read.
    """
    rows, there = 0, set()
    for row in read_examples(config, folder):
        rows += 1
        if isinstance(row, BadRow):
            raise InputError(f"{row.file}:{row.line}: {row.problem}")
        if isinstance(row, Example):
            there.add(_content(row.text, row.text_pair, row.label))
    report = load_label_report(out)
    if rows != report.rows:
        raise InputError(f"the data has {rows:,} rows and had {report.rows:,} when the search began")
    for part in PARTS:
        for _, line in read_jsonl(out / f"{part}.jsonl"):
            if _content(line["text"], line["text_pair"], line["label"]) not in there:
                raise InputError(
                    f"the data has changed since the search began: {line['row']} ({line['text'][:60]!r}) is no row of "
                    "it any more"
                )


def _line(example: Example, group: str) -> dict[str, Any]:
    return {
        "text": example.text,
        "text_pair": example.text_pair,
        "label": example.label,
        "group": group,
        "row": example.place,
    }


def _content(text: str, text_pair: str | None, label: str) -> int:
    return text_hash("\0".join((text, text_pair or "", label)))
