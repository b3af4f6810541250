"""One row of the source -> one labelled example, or the reason why not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.task import fold
from trainables.classification.config import LabelledDataConfig
from trainables.data.config import DataConfig, template_fields
from trainables.data.rows import (
    BadRow,
    DroppedRow,
    RawRow,
    WrongCellError,
    cell_text,
    filled,
    named_part,
    not_there,
    shortened,
)
from trainables.data.sources import read_rows

DECIMAL = re.compile(r"[+-]?\d*[.,]\d+([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or two, and its class. Texts are stripped and never empty."""

    file: str
    line: int
    part: str
    text: str
    text_pair: str | None
    label: str
    group: str | None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


class ExampleReader:
    """Reads examples off raw rows and remembers which columns it has seen."""

    def __init__(self, config: LabelledDataConfig) -> None:
        self._config = config
        columns = config.columns
        self._texts = {"text": columns.text} | ({} if columns.text_pair is None else {"text_pair": columns.text_pair})
        self.seen: Counter[str] = Counter()

    def example(self, row: RawRow) -> Example | BadRow | DroppedRow:
        """The row as an example, its templates filled in."""
        self.seen.update(row.cells.keys())
        columns = self._config.columns
        try:
            texts = {name: filled(row.cells, template) for name, template in self._texts.items()}
            label = self._label(row.cells.get(columns.label))
            group = "" if columns.group is None else cell_text(columns.group, row.cells.get(columns.group))
            part = self._part(row)
        except WrongCellError as wrong:
            return BadRow(row.file, row.line, str(wrong))
        if rule := self._rule(texts, label):
            return DroppedRow(row.file, row.line, rule, " | ".join(map(shortened, texts.values())), part)
        return Example(row.file, row.line, part, texts["text"], texts.get("text_pair"), label, group or None)

    def missing_column(self) -> str:
        """What to say of a column that the spec names (or needs) and no row has; empty if there is none."""
        columns = self._config.columns
        needed = {name: template_fields(template) for name, template in self._texts.items()}
        needed |= {"label": (columns.label,)}
        needed |= {name: (value,) for name in ("group", "split") if (value := getattr(columns, name)) is not None}
        if self._config.split.by == "column" and columns.split is None:
            needed["split"] = ("split",)
        return not_there(needed, self.seen)

    def _label(self, value: Any) -> str:
        column = self._config.columns.label
        label = cell_text(column, value)
        if (isinstance(value, float) and label) or DECIMAL.fullmatch(label):
            raise WrongCellError(f"{column} is {label}, a decimal number; expected the name or whole number of a class")
        known = self._config.labels
        if label and known is not None and label not in known:
            raise WrongCellError(f"{column} is {label[:40]!r}, expected one of data.labels: {', '.join(known[:20])}")
        return label

    def _part(self, row: RawRow) -> str:
        by = self._config.split.by
        if by == "group":
            return ""
        if row.part or by == "given":
            return row.part
        column = self._config.columns.split or "split"
        return named_part(column, row.cells.get(column))

    def _rule(self, texts: dict[str, str], label: str) -> str:
        for name, text in texts.items():
            if not text:
                return f"missing {name}"
        if not label:
            return "missing label"
        least = self._config.drop.min_text
        if any(len(fold(text)) < least for text in texts.values()):
            return f"text shorter than {least} characters"
        return ""


def read_examples(
    config: LabelledDataConfig, folder: Path, reader: ExampleReader | None = None
) -> Iterator[Example | BadRow | DroppedRow]:
    """Every row of the source, in its order.

    Args:
        config: the `data:` section.
        folder: where relative paths start, the spec's folder.
        reader: that remembers which columns were there.

    Raises:
        InputError: a file that is missing, of an unknown kind, or that cannot be read any further.
    """
    reader = reader or ExampleReader(config)
    source = DataConfig(source=config.source, max_rows=config.max_rows)  # what of a section says where rows are
    for row in read_rows(source, folder):
        yield row if isinstance(row, BadRow) else reader.example(row)
