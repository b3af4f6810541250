"""One row of the source -> one pair, or the reason why not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from evaluation.task import fold
from trainables.data.config import Columns, DataConfig, template_fields

PARTS = ("train", "dev", "test")
PART_NAMES = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
# Where a column is not named in the spec: the names under which it is looked for.
USUAL_NAMES = {
    "negative": ("negative", "negatives"),
    "concept": ("concept", "cluster_id"),
    "kind": ("kind",),
    "domain": ("domain", "domains"),
    "split": ("split",),
}


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as the source has it.

    Attributes:
        file: name of the file, or of the data set.
        line: counts from 1: the physical line of a text file, else the row.
        part: train, dev or test where the file says so, else empty.
        cells: column name -> value.
        grade: how relevant the passage is, as BEIR's qrels say; 1 where the source does not grade.
    """

    file: str
    line: int
    part: str
    cells: dict[str, Any]
    grade: int = 1


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read: what is wrong and what was expected."""

    file: str
    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that one of the spec's rules leaves out."""

    file: str
    line: int
    rule: str
    text: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, a passage that answers it, and what is known of them. Texts are stripped and never empty."""

    file: str
    line: int
    part: str
    anchor: str
    positive: str
    negatives: tuple[str, ...]
    concept: str | None
    kind: str | None
    domain: str | None
    pinned: bool = False  # a row of an earlier run, which keeps its part
    grade: int = 1


class WrongCellError(ValueError):
    """A cell of the wrong type; becomes a BadRow."""


class PairReader:
    """Reads pairs off raw rows and remembers which columns it has seen."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._templates = {
            name: (getattr(config.columns, name), template_fields(getattr(config.columns, name)))
            for name in ("anchor", "positive")
        }
        self.seen: Counter[str] = Counter()

    def pair(self, row: RawRow) -> Pair | BadRow | DroppedRow:
        """The row as a pair, with its texts stripped and its templates filled in."""
        self.seen.update(row.cells.keys())
        try:
            anchor, positive = (filled(row.cells, self._templates[name][0]) for name in ("anchor", "positive"))
            optional = {name: self._optional(row, name) for name in USUAL_NAMES}
            negatives = _texts("negative", optional["negative"])
            concept, kind = cell_text("concept", optional["concept"]), cell_text("kind", optional["kind"])
            domains = _texts("domain", optional["domain"])
            part = self._part(row.part, optional["split"])
        except WrongCellError as wrong:
            return BadRow(row.file, row.line, str(wrong))
        if rule := self._rule(anchor, positive):
            return DroppedRow(row.file, row.line, rule, f"{shortened(anchor)} -> {shortened(positive)}", part)
        domain = domains[0] if domains else None
        return Pair(
            row.file,
            row.line,
            part,
            anchor,
            positive,
            negatives,
            concept or None,
            kind or None,
            domain,
            grade=row.grade,
        )

    def missing_column(self) -> str:
        """What to say of a column that the spec names (or needs) and no row has; empty if there is none."""
        columns: Columns = self._config.columns
        needed = {name: fields for name, (_, fields) in self._templates.items()}
        needed |= {name: (value,) for name in USUAL_NAMES if (value := getattr(columns, name)) is not None}
        if self._config.split.by == "column" and columns.split is None:
            needed["split"] = ("split",)
        return not_there(needed, self.seen)

    def _optional(self, row: RawRow, name: str) -> Any:
        given = getattr(self._config.columns, name)
        for column in (given,) if given is not None else USUAL_NAMES[name]:
            if column in row.cells:
                return row.cells[column]
        return None

    def _part(self, of_file: str, cell: Any) -> str:
        by = self._config.split.by
        if by in ("concept", "query"):
            return ""
        if of_file or by == "given":
            return of_file
        return named_part("split", cell)

    def _rule(self, anchor: str, positive: str) -> str:
        drop = self._config.drop
        if not anchor:
            return "missing anchor"
        if not positive:
            return "missing positive"
        if len(fold(anchor)) < drop.min_anchor:
            return f"anchor shorter than {drop.min_anchor} characters"
        if len(fold(positive)) < drop.min_positive:
            return f"positive shorter than {drop.min_positive} characters"
        return ""


def not_there(needed: Mapping[str, Iterable[str]], seen: Iterable[str]) -> str:
    """What to say of the first column that is needed and that no row has; empty if there is none.

    Args:
        needed: key of `columns` -> the columns that it names.
        seen: columns of the rows.
    """
    known = list(seen)
    for name, fields in needed.items():
        for field in fields:
            if field not in known:
                there = ", ".join(str(column) for column in known[:20]) or "none"
                return f"columns.{name}: no column {field!r}; the source has: {there}"
    return ""


def named_part(column: str, cell: Any) -> str:
    """The part that a cell names; empty where it is empty.

    Raises:
        WrongCellError: it names another.
    """
    text = cell_text(column, cell)
    if text and text.lower() not in PART_NAMES:
        raise WrongCellError(f"{column} is {text[:40]!r}, expected train, dev (or validation) or test")
    return PART_NAMES[text.lower()] if text else ""


def filled(cells: Mapping[str, Any], template: str) -> str:
    """A template filled in with a row's cells; empty where one of them is missing.

    Raises:
        WrongCellError: a cell that is no text.
    """
    fields = template_fields(template)
    values = {field: cell_text(field, cells.get(field)) for field in fields}
    if not all(values.values()):
        return ""  # a text with a hole in it is a missing text
    if "{" not in template:
        return values[fields[0]]
    # By name, not by str.format, which takes a dot or a bracket in a column's name for an attribute or an index.
    pieces = Formatter().parse(template)
    return "".join(text + (values[field] if field else "") for text, field, *_ in pieces).strip()


def cell_text(column: str, value: Any) -> str:
    """A cell as a stripped text; empty where it is missing (null, NaN, blank).

    Raises:
        WrongCellError: it holds something else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WrongCellError(f"{column} is {_shown(value)}, expected a text")
    if isinstance(value, float) and math.isinf(value):
        raise WrongCellError(f"{column} is infinite, expected a text")
    try:
        text = str(value).strip()
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise WrongCellError(f"{column} holds half a character (a lone surrogate), expected a text") from None
    except ValueError:
        raise WrongCellError(f"{column} is a number of thousands of digits, expected a text") from None
    return text


def _texts(column: str, value: Any) -> tuple[str, ...]:
    """A cell that holds one text or a list of them; missing ones are left out."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(text for one in values if (text := cell_text(column, one)))


def shortened(text: str, width: int = 60) -> str:
    """A text on one line, cut where it is longer."""
    line = fold(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value!r} ({type(value).__name__})"[:60]
