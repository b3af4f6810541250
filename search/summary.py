"""What a search says at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.leaderboard import Row
from trainables.data import OLD_TEST


def savings(rows: Sequence[Row]) -> str:
    """What the pruner saved, in training pairs that were planned and not trained on."""
    pruned = [row for row in rows if row.state == "PRUNED"]
    planned = sum(row.planned_pairs for row in rows)
    saved = sum(row.planned_pairs - row.pairs for row in pruned)
    share = saved / planned if planned else 0.0
    return (
        f"The pruner stopped {len(pruned)} of {len(rows)} trials and saved {saved:,} of {planned:,} planned training "
        f"pairs ({share:.0%})."
    )


def print_benchmark(benchmark: Mapping[str, Any], console: Console) -> None:
    """Base against best on the test part."""
    parts = {f"Test part, protocol {protocol}": part for protocol, part in benchmark["protocols"].items()}
    if OLD_TEST in benchmark:
        parts["Test part of the run that this one continues"] = benchmark[OLD_TEST]
    for title, part in parts.items():
        table = Table(
            title=f"{title}: {part['queries']} queries of {part['concepts']} concepts, {part['passages']} passages",
            title_justify="left",
        )
        for name in ("metric", "base", "best", "difference", "95 % interval", "p"):
            table.add_column(name, justify="left" if name == "metric" else "right")
        for metric, c in part["comparisons"].items():
            colour = "green" if c["low"] > 0 else "red" if c["high"] < 0 else "yellow"
            table.add_row(
                metric,
                f"{c['base']:.4f}",
                f"{c['other']:.4f}",
                f"[{colour}]{c['difference']:+.4f}[/]",
                f"{c['low']:+.4f} to {c['high']:+.4f}",
                f"{c['p_value']:.4f}",
                style="bold" if metric == benchmark["metric"] else "",
            )
        console.print(table)
        for line in part.get("left_out", ()):  # runs of earlier versions do not say
            console.print(line, style="dim", highlight=False, markup=False)
    if OLD_TEST in benchmark:
        console.print(forgetting(benchmark), highlight=False)
    if "optimism" in benchmark:
        console.print(optimism(benchmark), highlight=False)


def forgetting(benchmark: Mapping[str, Any]) -> str:
    """How the test part of the run that this one continues fares under the new model."""
    c = benchmark[OLD_TEST]["comparisons"][benchmark["metric"]]
    verdict = "has forgotten" if c["high"] < 0 else "has even gained" if c["low"] > 0 else "shows no loss"
    return (
        f"No-forgetting check: on the earlier run's test part the new model {verdict}: {benchmark['metric']} "
        f"{c['base']:.4f} before, {c['other']:.4f} now, {c['difference']:+.4f} "
        f"(95 % {c['low']:+.4f} to {c['high']:+.4f})."
    )


def optimism(benchmark: Mapping[str, Any]) -> str:
    """How much of the winner's dev score was luck of the choice, beside the base, on which nothing was chosen."""
    best, base = benchmark["optimism"]["best"], benchmark["optimism"]["base"]
    return (
        f"Optimism: the model scores {benchmark['metric']} {best['dev']:.4f} on dev, which chose it, and "
        f"{best['test']:.4f} on test: {best['difference']:+.4f}; its base, chosen on neither, {base['dev']:.4f} and "
        f"{base['test']:.4f}: {base['difference']:+.4f}."
    )


def shown_path(path: Path) -> str:
    """Relative to where the user is, if it is below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_how_to_load(best: Path, console: Console) -> None:
    """The exported model's path, and the two lines that load it."""
    shown = shown_path(best)
    console.print(f"The best model is in [bold]{shown}[/]. Load it with", highlight=False)
    console.print("    from sentence_transformers import SentenceTransformer", highlight=False)
    console.print(f'    model = SentenceTransformer("{shown}")', highlight=False, soft_wrap=True)
