"""The benchmark's table as JSON, CSV, Markdown and on a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from evaluation.compare import Comparison
from evaluation.files import write_whole
from evaluation.retrieval import Scores

SPEED_TOKENS = 64  # of the passages whose encoding is timed for the table
WIDE = 170  # terminal columns that the table fills with all of its metrics


@dataclass(frozen=True)
class ModelRow:
    """One model on one task.

    Attributes:
        task, model: names.
        queries, groups: how many of each were scored.
        dimensions: of an embedding.
        score: mean of the table's metric.
        standard_error: of it, over groups; NaN with one group.
        scores: each metric's mean over the queries.
        base: name of the model that this one was fine-tuned from; None: not known.
        comparison: with the base on the table's metric; None: no base, or it could not be had.
        p_holm: the comparison's p-value, corrected over the table.
        details: what evaluation.benchmark.details adds.
        parameters: of the model; None: not counted.
        texts_per_second: of SPEED_TOKENS tokens, encoded in full batches on this machine; None: not measured.
    """

    task: str
    model: str
    queries: int
    groups: int
    dimensions: int
    score: float
    standard_error: float
    scores: Mapping[str, float]
    base: str | None = None
    comparison: Comparison | None = None
    p_holm: float | None = None
    details: Mapping[str, Any] | None = None
    parameters: int | None = None
    texts_per_second: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is not known is null."""
        c = self.comparison
        return {
            "task": self.task,
            "model": self.model,
            "queries": self.queries,
            "groups": self.groups,
            "dimensions": self.dimensions,
            "score": self.score,
            "standard_error": None if math.isnan(self.standard_error) else self.standard_error,
            "scores": dict(self.scores),
            "base": self.base,
            "base_score": c.base if c else None,
            "difference": c.difference if c else None,
            "low": c.low if c else None,
            "high": c.high if c else None,
            "p_value": c.p_value if c else None,
            "p_holm": self.p_holm,
            "details": self.details,
            "parameters": self.parameters,
            "texts_per_second": self.texts_per_second,
        }


@dataclass(frozen=True)
class BenchmarkTable:
    """The rows, tasks in the order given and the best model of each first.

    Attributes:
        metric: what rows are sorted by and compared on.
        rows: see ModelRow.
        notes: one line for each thing a reader must know: queries left out, bases that could not be had, prompts.
        scores: (task, model) -> the scores query by query, for those who look closer; not written.
    """

    metric: str
    rows: tuple[ModelRow, ...]
    notes: tuple[str, ...]
    scores: Mapping[tuple[str, str], Scores]

    def as_dict(self) -> dict[str, Any]:
        """What benchmark.json holds."""
        return {"metric": self.metric, "rows": [row.as_dict() for row in self.rows], "notes": list(self.notes)}

    def json(self) -> str:
        """The table as JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2) + "\n"

    def csv(self) -> str:
        """The table as CSV: one column for each metric, no details."""
        out = io.StringIO()
        writer: csv.DictWriter[str] | None = None
        for row in self.rows:
            cells = row.as_dict()
            del cells["details"], cells["score"]
            cells |= cells.pop("scores")
            if writer is None:
                writer = csv.DictWriter(out, list(cells), lineterminator="\n")
                writer.writeheader()
            writer.writerow(cells)
        return out.getvalue()

    def markdown(self) -> str:
        """The table as Markdown, its notes below."""
        head = self._head()
        lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *(self._cells(row) for row in self.rows)]
        text = _markdown(lines) + "".join(f"\n- {note}" for note in (self._legend(), *self.notes)) + "\n"
        for task, head, measures in self._detailed():
            lines = [head, ["---", *["---:"] * (len(head) - 1)], *measures]
            text += f"\n{task}\n\n{_markdown(lines)}"
        return text

    def rich(self, width: int = WIDE) -> Table:
        """The table for a terminal of so many columns: without the notes, and where it is narrow one metric alone."""
        others = width >= WIDE
        rest = "" if others else "; other metrics: --csv, --markdown, --json"
        table = Table(caption=self._legend() + rest, caption_justify="left")
        for place, name in enumerate(self._head(others)):
            table.add_column(name, justify="left" if place < 2 else "right", overflow="fold")
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            if before is not None and before.task != row.task:
                table.add_section()
            table.add_row(*self._cells(row, others))
        return table

    def rich_details(self) -> list[Table]:
        """For each task what the details say, one column for each model; empty without details."""
        tables = []
        for task, head, measures in self._detailed():
            table = Table(title=escape(task), title_justify="left")
            for place, name in enumerate(head):
                table.add_column(escape(name), justify="right" if place else "left", overflow="fold")
            for cells in measures:
                table.add_row(*cells)
            tables.append(table)
        return tables

    def write(self, folder: Path) -> None:
        """Write benchmark.csv, benchmark.md and, last, benchmark.json."""
        write_whole(folder / "benchmark.csv", self.csv())
        write_whole(folder / "benchmark.md", self.markdown())
        write_whole(folder / "benchmark.json", self.json())

    def _detailed(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Task, head and lines of its table of details: a measure in each line, a model in each column."""
        for task in dict.fromkeys(row.task for row in self.rows):
            rows = [row for row in self.rows if row.task == task and row.details is not None]
            columns = [_measures(row.details or {}, self.metric) for row in rows]
            names = dict.fromkeys(name for column in columns for name in column)
            if names:
                lines = [[name, *(column.get(name, "") for column in columns)] for name in names]
                yield task, ["measure", *(row.model for row in rows)], lines

    def _others(self) -> list[str]:
        return [name for name in (self.rows[0].scores if self.rows else ()) if name != self.metric]

    def _sized(self) -> bool:
        """Whether the table has columns of sizes and speeds."""
        return any(row.texts_per_second is not None for row in self.rows)

    @staticmethod
    def _size(row: ModelRow) -> list[str]:
        speed = row.texts_per_second
        return [
            "" if row.parameters is None else f"{row.parameters:,}",
            "" if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}",
        ]

    def _head(self, others: bool = True) -> list[str]:
        names = self._others() if others else []
        sizes = ["parameters", "texts/s"] if self._sized() else []
        return ["task", "model", self.metric, *names, *sizes, "base", "difference (95 % interval)", "p (Holm)"]

    def _cells(self, row: ModelRow, others: bool = True) -> list[str]:
        c = row.comparison
        return [
            row.task,
            row.model,
            f"{row.score:.4f} ± {row.standard_error:.4f}",
            *(f"{row.scores[name]:.4f}" for name in self._others() if others),
            *(self._size(row) if self._sized() else ()),
            f"{c.base:.4f} {row.base}" if c else (row.base or ""),
            f"{c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f})" if c else "",
            f"{row.p_holm:.4f}" if row.p_holm is not None else "",
        ]

    def _legend(self) -> str:
        return (
            f"{self.metric} ± its standard error; intervals and p-values resample concepts, "
            "p-values are corrected over the table (Holm)"
            + (f"; texts/s: passages of {SPEED_TOKENS} tokens on this machine" if self._sized() else "")
        )


def _measures(details: Mapping[str, Any], metric: str) -> dict[str, str]:
    """A row's details as lines of a table: what is measured -> its value."""
    lines = {}
    for protocol in ("pairwise", "mini_retrieval", "near_concepts", "triplets", "context", "judged"):
        for name, value in (details.get(protocol) or {}).items():
            if name not in ("negatives", "questions"):
                lines[f"{protocol.replace('_', ' ')}: {name}"] = f"{value:.4f}"
        if reason := details.get(f"{protocol}_left_out"):
            lines[protocol.replace("_", " ")] = f"left out: {reason}"
    lines |= {
        f"{metric}, first {size} dimensions": f"{value:.4f}" for size, value in details.get("truncated", {}).items()
    }
    for speed in details.get("speed", ()):
        lines[f"texts/s of {speed['tokens']} tokens"] = f"{speed['texts_per_second']:,.0f}"
        lines[f"ms for one text of {speed['tokens']} tokens"] = f"{speed['latency_ms']:.1f}"
    return lines


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
