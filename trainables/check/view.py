"""The data report on screen."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainables.data.report import CorpusUse, DataReport, Lengths
from trainables.data.rows import PARTS

DOMAINS_SHOWN = 10
RARE = 0.01  # languages below it are more often mistakes than languages


def print_report(report: DataReport, console: Console) -> None:
    """Print a report: what was read, how it splits, what was found, and whether it can be used."""
    source = report.config.source
    name = source if isinstance(source, str) else source.model_dump_json(exclude_none=True)
    dropped = "".join(f", {count:,} dropped ({escape(rule)})" for rule, count in report.dropped.items())
    console.print(f"[bold]{escape(name)}[/]: {report.rows:,} rows{dropped}")
    if report.kept:
        console.print(_parts(report))
        sizes = report.concept_sizes
        if sizes:
            console.print(
                f"rows of a concept: {sizes['smallest']:g} to {sizes['largest']:g}, median {sizes['median']:g}"
            )
    if report.corpus is not None:
        console.print(corpus_text(report.corpus))
    for column, lengths in report.lengths.items():
        console.print(f"{column}: {_length(lengths)}")
    if report.languages:
        shares = [f"{language} {share:.0%}" for language, share in report.languages.items() if share >= RARE]
        console.print(f"languages of a sample of passages: {', '.join(shares)}")
    if report.domains:
        console.print(_domains(report))
    for finding in report.findings:
        console.print(f"\n[bold yellow]{finding.count:,}[/] {escape(finding.what)}")
        console.print(f"  [dim]what the search does:[/] {escape(finding.action)}")
        for example in finding.examples:
            console.print(f"  [cyan]{escape(example.where)}[/]  {escape(example.text)}", highlight=False)
    if report.kept and report.unseen == "questions":
        console.print(
            "\nThe test part has questions that training and dev have not, on passages or concepts that they may have: "
            "a gain holds for new questions on what is known."
        )
    if report.unusable is not None:
        console.print(f"\n[bold red]unusable[/]: {escape(report.unusable)}", highlight=False)
    else:
        console.print("\n[bold green]usable[/]" + ("" if report.findings else ", nothing found"))


def corpus_text(corpus: CorpusUse) -> str:
    """What a BEIR folder's judgements say of its corpus, in one line."""
    return (
        f"corpus: {corpus.passages:,} passages, of which {corpus.idle / corpus.passages:.0%} answer no question; "
        f"{corpus.several:,} of {corpus.questions:,} questions have several answers"
    )


def _parts(report: DataReport) -> Table:
    table = Table("part", "rows", "concepts", "passages", box=None, pad_edge=False)
    for part in PARTS:
        table.add_row(part, *(f"{counts[part]:,}" for counts in (report.kept, report.concepts, report.passages)))
    return table


def _length(lengths: Lengths) -> str:
    text = (
        f"{lengths.mean:g} {lengths.unit} on average, median {lengths.median:g}, 95 % up to {lengths.p95:.0f}, "
        f"longest {lengths.longest:,}"
    )
    if lengths.cut is not None:
        text += f"; {lengths.cut:.1%} are cut at {lengths.max_length} (of {lengths.of:,} counted)"
    return text


def _domains(report: DataReport) -> Table:
    table = Table("domain (concepts)", *PARTS, box=None, pad_edge=False)
    ranked = sorted(report.domains.items(), key=lambda item: -sum(item[1].values()))
    for domain, counts in ranked[:DOMAINS_SHOWN]:
        table.add_row(escape(domain), *(str(counts[part]) for part in PARTS))
    if len(ranked) > DOMAINS_SHOWN:
        rest = [sum(counts[part] for _, counts in ranked[DOMAINS_SHOWN:]) for part in PARTS]
        table.add_row(f"{len(ranked) - DOMAINS_SHOWN} more", *map(str, rest))
    return table
