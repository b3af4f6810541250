"""Check labelled data: what is wrong with it, row by row, and what the search does about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError
from evaluation.task import fold
from trainables.bases.token_counts import TokenCounter
from trainables.classification.config import MAX_LABELS, LabelledDataConfig
from trainables.classification.report import LabelReport
from trainables.classification.rows import Example, ExampleReader, read_examples
from trainables.classification.splits import divide, leave_out_repeated
from trainables.data.report import Finding, Lengths, Place
from trainables.data.rows import PARTS, BadRow, DroppedRow, shortened
from trainables.data.splits import DEV, LEFT_OUT, TEST, TRAIN, UNDECIDED, components, draw, text_hash

SHOWN = 5  # examples of a finding
SAMPLE = 2000  # inputs whose tokens are counted
NO_SEED = 42


@dataclass
class Labelled:
    """The rows of a source, and what becomes of each.

    Attributes:
        examples: N rows that could be read and were not dropped.
        labels: the classes.
        true_N: the class of each row; empty while labels are not known.
        groups_N: group of each row, 0 to G - 1.
        group_names: of the groups.
        parts_N: TRAIN, DEV, TEST or LEFT_OUT.
        meant_N: the part before repeated rows were left out.
    """

    examples: list[Example] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    true_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    groups_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    group_names: list[str] = field(default_factory=list)
    parts_N: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, dtype=np.int8))
    meant_N: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, dtype=np.int8))


def check_labelled(
    config: LabelledDataConfig, folder: Path, seed: int = NO_SEED, tokens: TokenCounter | None = None
) -> tuple[Labelled, LabelReport]:
    """The rows of a source as they would be used, and the report on them.

    Args:
        folder: where relative paths start.
        seed: of the split.
        tokens: counts the lengths of inputs in a base's tokens; None: lengths are in characters.

    Raises:
        InputError: never for what is wrong with the data: that is the report's `unusable`.
    """
    found, report = Labelled(), LabelReport(config=config, seed=seed, rows=0)
    try:
        report.unusable = _read(config, folder, found, report)
    except InputError as error:
        report.unusable = str(error)
    if not found.examples or report.unusable is not None:
        return found, report
    found.labels = report.labels = config.labels or _sorted({example.label for example in found.examples})
    if (wrong := _wrong_labels(found)) is not None:
        report.unusable = wrong
        return found, report
    _split(config, seed, found)
    _count(found, report)
    report.findings = list(_findings(found))
    report.lengths = {"input": _lengths(found.examples, tokens)}
    report.unusable = _unusable_parts(config, found, report)
    return found, report


def _read(config: LabelledDataConfig, folder: Path, found: Labelled, report: LabelReport) -> str | None:
    """Take the rows in. Returns why they cannot be used."""
    reader = ExampleReader(config)
    bad: list[BadRow] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[str, int]] = set()
    for row in read_examples(config, folder, reader):
        report.rows += 1
        if isinstance(row, BadRow):
            bad.append(row)
        elif isinstance(row, DroppedRow):
            dropped[row.rule] += 1
        else:
            key = (row.part, text_hash("\0".join((_key(row), row.label))))
            if config.drop.duplicates and key in seen:
                dropped["duplicate"] += 1
                continue
            seen.add(key)
            found.examples.append(row)
    report.dropped = dict(dropped)
    if (missing := reader.missing_column()) and reader.seen:
        return missing
    if bad:
        more = f" (and {len(bad) - 1} more rows that cannot be read)" if len(bad) > 1 else ""
        return f"{bad[0].file}:{bad[0].line}: {bad[0].problem}{more}"
    if not found.examples:
        told = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
        return f"no row with a text and a label in {report.rows} rows ({told or 'the source is empty'})"
    return None


def _wrong_labels(found: Labelled) -> str | None:
    """What is wrong with the labels as such: names that are nearly the same, one row alone, one class, too many."""
    rows: dict[str, list[Example]] = {}
    for example in found.examples:
        rows.setdefault(example.label, []).append(example)
    if len(rows) > MAX_LABELS:
        return (
            f"{len(rows):,} labels in {len(found.examples):,} rows, expected at most {MAX_LABELS:,} classes "
            "(is columns.label an id or a text?)"
        )
    folded: dict[str, str] = {}
    for label, own in rows.items():
        other = folded.setdefault(fold(label).casefold(), label)
        if other != label:
            return (
                f"labels {other!r} ({rows[other][0].place}) and {label!r} ({own[0].place}) differ by case or space "
                "alone, expected one name for one class"
            )
    if len(rows) < 2:
        return f"every row has the label {next(iter(rows))!r}, expected two classes or more"
    alone = [own[0] for own in rows.values() if len(own) == 1]
    if alone:
        places = ", ".join(f"{example.label!r} ({example.place})" for example in alone[:SHOWN])
        more = f" and {len(alone) - SHOWN} more" if len(alone) > SHOWN else ""
        return f"labels that appear once: {places}{more}; expected rows for training, dev and test of each"
    return None


def _split(config: LabelledDataConfig, seed: int, found: Labelled) -> None:
    examples = found.examples
    at = {label: number for number, label in enumerate(found.labels)}
    found.true_N = np.array([at[example.label] for example in examples], dtype=np.int64)
    texts_N, pairs_N = (
        np.array([text_hash(fold(getattr(e, name) or e.text)) for e in examples], dtype=np.uint64)
        for name in ("text", "text_pair")
    )
    if config.columns.group is not None:
        names = [example.group or f"row {example.place}" for example in examples]
        group_names, found.groups_N = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
        found.group_names = group_names.tolist()
    else:
        found.groups_N = components(texts_N, pairs_N)
        first = np.unique(found.groups_N, return_index=True)[1]
        found.group_names = [f"{text_hash(_key(examples[row])):016x}" for row in first]
    given = [PARTS.index(example.part) if example.part else UNDECIDED for example in examples]
    given_N = np.array(given, dtype=np.int8)
    named = frozenset(PARTS.index(example.part) for example in examples if example.part)
    draws_G = np.array([draw(seed, "part", name) for name in found.group_names])
    split = config.split
    found.meant_N = divide(found.groups_N, found.true_N, draws_G, given_N, named, split.dev, split.test)
    inputs_N = np.array([text_hash(_key(example)) for example in examples], dtype=np.uint64)
    found.parts_N = leave_out_repeated(found.meant_N, inputs_N)


def _count(found: Labelled, report: LabelReport) -> None:
    for part, name in enumerate(PARTS):
        own = found.parts_N == part
        report.kept[name] = int(own.sum())
        report.groups[name] = len(np.unique(found.groups_N[own]))
    for number, label in enumerate(found.labels):
        own = found.true_N == number
        report.counts[label] = {name: int((own & (found.parts_N == part)).sum()) for part, name in enumerate(PARTS)}


def _unusable_parts(config: LabelledDataConfig, found: Labelled, report: LabelReport) -> str | None:
    """A class that a part lacks; a part of one group, of which there is no interval."""
    if config.split.by in ("given", "column") and not any(example.part for example in found.examples):
        return f"split.by: {config.split.by}, but the source does not say which rows are train, dev and test"
    for part in (TRAIN, DEV, TEST):
        name = PARTS[part]
        lacking = [label for label, counts in report.counts.items() if not counts[name]]
        if lacking:
            first = next((e for e in found.examples if e.label == lacking[0]), None)
            rows = sum(report.counts[lacking[0]].values())
            seen = f"{rows} rows, the first at {first.place}" if first else "no row of the source"
            more = f" (and {len(lacking) - 1} more labels)" if len(lacking) > 1 else ""
            return (
                f"split: the {name} part has no row of label {lacking[0]!r} ({seen}){more}; expected each class in "
                "training, dev and test"
            )
        if part != TRAIN and report.groups[name] < 2:
            return f"split: the {name} part holds 1 group, and an interval needs 2"
    return None


def _findings(found: Labelled) -> Iterator[Finding]:
    yield from _two_labels(found)
    repeated = np.flatnonzero((found.parts_N == LEFT_OUT) & (found.meant_N != LEFT_OUT))
    if len(repeated):
        yield _finding(
            "inputs on two sides",
            repeated,
            "rows whose texts stand in another part too",
            "left out of training, then of dev",
            found,
        )
    for name, title in (("text", "texts"), ("text_pair", "second texts")):
        if name == "text_pair" and found.examples[0].text_pair is None:
            continue
        keys_N = np.array([text_hash(fold(getattr(e, name))) for e in found.examples], dtype=np.uint64)
        held = [np.unique(keys_N[found.parts_N == part]) for part in (TRAIN, DEV, TEST)]
        shared = np.concatenate([np.intersect1d(held[a], held[b]) for a, b in ((0, 1), (0, 2), (1, 2))])
        rows = np.flatnonzero(np.isin(keys_N, shared) & (found.parts_N >= TRAIN))
        if len(rows):
            yield _finding(
                f"{title} in several parts",
                rows,
                f"rows with {title} that stand in several parts",
                "kept as the source, or columns.group, divides them; scores may be too high",
                found,
            )
    counts = np.bincount(found.true_N[found.parts_N >= TRAIN], minlength=len(found.labels))
    if counts.min() and counts.max() >= 10 * counts.min():
        few, many = (found.labels[int(at)] for at in (counts.argmin(), counts.argmax()))
        yield Finding(
            name="uneven classes",
            count=int(counts.max() // counts.min()),
            what=f"times as many rows of {many!r} as of {few!r}",
            action="nothing; space.class_weights: balanced lets each class count alike in the loss",
        )


def _two_labels(found: Labelled) -> Iterator[Finding]:
    """The same input with different labels: no model gets all of them right."""
    rows: dict[str, list[int]] = {}
    for row, example in enumerate(found.examples):
        rows.setdefault(_key(example), []).append(row)
    several = [own for own in rows.values() if len({found.examples[row].label for row in own}) > 1]
    if several:
        yield Finding(
            name="texts with two labels",
            count=len(several),
            what="inputs that have several labels",
            action="kept; no model can get all of their rows right",
            examples=tuple(
                Place(
                    where=" and ".join(found.examples[row].place for row in own[:3]),
                    text=f"{_text(found.examples[own[0]])}: "
                    + ", ".join(dict.fromkeys(found.examples[row].label for row in own)),
                )
                for own in several[:SHOWN]
            ),
        )


def _finding(name: str, rows: NDArray[np.int64], what: str, action: str, found: Labelled) -> Finding:
    shown = [found.examples[row] for row in rows[:SHOWN].tolist()]
    examples = tuple(Place(where=example.place, text=_text(example)) for example in shown)
    return Finding(name=name, count=len(rows), what=what, action=action, examples=examples)


def _lengths(examples: Sequence[Example], tokens: TokenCounter | None) -> Lengths:
    if tokens is None:
        values = np.array([len(e.text) + len(e.text_pair or "") for e in examples])
        unit, limit = "characters", None
    else:
        step = max(1, len(examples) // SAMPLE)
        values = np.array(tokens.count_inputs([(e.text, e.text_pair) for e in examples[::step]]))
        unit, limit = "tokens", tokens.max_length
    return Lengths.summary(values, unit, limit)


def _sorted(labels: set[str]) -> tuple[str, ...]:
    """By name; whole numbers by value."""
    numbers = all(label.lstrip("+-").isdecimal() for label in labels)
    return tuple(sorted(labels, key=(lambda label: (int(label), label)) if numbers else (lambda label: (0, label))))


def _key(example: Example) -> str:
    """What decides whether two rows ask the same: their texts, white space folded."""
    return "\0".join(fold(text) for text in (example.text, example.text_pair) if text is not None)


def _text(example: Example) -> str:
    return " | ".join(shortened(text) for text in (example.text, example.text_pair) if text is not None)
