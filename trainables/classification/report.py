"""What the check of labelled data found: shown by `embtune data check`, kept as a run's data/report.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainables.classification.config import LabelledDataConfig
from trainables.data.report import Finding, Lengths
from trainables.data.rows import PARTS

LABELS_SHOWN = 30


class LabelReport(BaseModel):
    """The report on labelled data.

    Attributes:
        config, seed: what the rows were read and split with.
        rows: of the source; `dropped` and the rows that could not be read are among them.
        dropped: rule -> rows that it took.
        labels: the classes, in the order of the model's outputs.
        kept, groups: part -> rows, and -> groups.
        counts: label -> part -> rows.
        lengths: of the inputs.
        findings: most severe first.
        unusable: why the data cannot be used; None: it can.
        content_hash: of the prepared parts; empty when nothing was written.
    """

    model_config = ConfigDict(extra="forbid")

    config: LabelledDataConfig
    seed: int
    rows: int
    dropped: dict[str, int] = {}
    labels: tuple[str, ...] = ()
    kept: dict[str, int] = {}
    groups: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    lengths: dict[str, Lengths] = {}
    findings: list[Finding] = []
    unusable: str | None = None
    content_hash: str = ""

    def sizes(self) -> str:
        """The parts in one line."""
        parts = ", ".join(f"{part} {rows:,} rows of {self.groups[part]:,} groups" for part, rows in self.kept.items())
        return f"{parts}; {len(self.labels)} labels"


def print_label_report(report: LabelReport, console: Console) -> None:
    """Print a report: what was read, how it splits, what was found, and whether it can be used."""
    source = report.config.source
    name = source if isinstance(source, str) else source.model_dump_json(exclude_none=True)
    dropped = "".join(f", {count:,} dropped ({escape(rule)})" for rule, count in report.dropped.items())
    console.print(f"[bold]{escape(name)}[/]: {report.rows:,} rows{dropped}", highlight=False)
    if report.counts:
        console.print(_counts(report))
    for column, found in report.lengths.items():
        cut = "" if found.cut is None else f"; {found.cut:.1%} are cut at {found.max_length}"
        console.print(
            f"{column}: {found.mean:g} {found.unit} on average, median {found.median:g}, 95 % up to {found.p95:.0f}, "
            f"longest {found.longest:,}{cut}",
            highlight=False,
        )
    for finding in report.findings:
        console.print(f"\n[bold yellow]{finding.count:,}[/] {escape(finding.what)}")
        console.print(f"  [dim]what the search does:[/] {escape(finding.action)}")
        for example in finding.examples:
            console.print(f"  [cyan]{escape(example.where)}[/]  {escape(example.text)}", highlight=False)
    if report.unusable is not None:
        console.print(f"\n[bold red]unusable[/]: {escape(report.unusable)}", highlight=False)
    else:
        console.print("\n[bold green]usable[/]" + ("" if report.findings else ", nothing found"))


def _counts(report: LabelReport) -> Table:
    table = Table("label (rows)", *PARTS, box=None, pad_edge=False)
    ranked = sorted(report.counts.items(), key=lambda item: -sum(item[1].values()))
    for label, parts in ranked[:LABELS_SHOWN]:
        table.add_row(escape(label), *(f"{parts[part]:,}" for part in PARTS))
    if len(ranked) > LABELS_SHOWN:
        rest = [sum(parts[part] for _, parts in ranked[LABELS_SHOWN:]) for part in PARTS]
        table.add_row(f"{len(ranked) - LABELS_SHOWN} more", *(f"{count:,}" for count in rest))
    table.add_row("all", *(f"{report.kept[part]:,}" for part in PARTS), style="bold")
    table.add_row("groups", *(f"{report.groups[part]:,}" for part in PARTS), style="dim")
    return table
