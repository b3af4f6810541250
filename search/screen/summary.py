"""What a search says at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from search.results.leaderboard import Row
from trainables.data.prepared import OLD_TEST

RELEVANT = {"concept": "any passage of the concept counts", "definition": "its definition alone counts"}


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


def main_protocol(benchmark: Mapping[str, Any], wanted: str) -> str | None:
    """The protocol that decides: the search's own where the test part has queries for it; None without any."""
    return wanted if wanted in benchmark["protocols"] else next(iter(benchmark["protocols"]), None)


def print_benchmark(benchmark: Mapping[str, Any], console: Console, verdict: tuple[str, str] | None) -> None:
    """Base against best on the test part, and what to make of it: `gain`'s answer, None where there is none."""
    parts = {f"Test part, protocol {name} ({RELEVANT[name]})": part for name, part in benchmark["protocols"].items()}
    if OLD_TEST in benchmark:
        parts["Test part of the run that this one continues"] = benchmark[OLD_TEST]
    for title, part in parts.items():
        console.print(
            f"{title}: {part['queries']} queries of {part['concepts']} concepts, {part['passages']} passages",
            highlight=False,
        )
        table = Table()
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
    if verdict is not None:
        mood, sentence = verdict
        console.print(sentence, style={"good": "green", "bad": "red"}.get(mood, "yellow"), highlight=False)
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
    luck = round(best["difference"] - base["difference"], 4)
    return (
        f"Optimism: from dev, which chose the model, to test its {benchmark['metric']} goes from {best['dev']:.4f} to "
        f"{best['test']:.4f}, that of its base, which nothing chose, from {base['dev']:.4f} to {base['test']:.4f}: dev "
        + (f"flatters the choice by about {luck:.4f}." if luck > 0 else "does not flatter the choice.")
    )


def gain(benchmark: Mapping[str, Any], protocol: str, base_kept: bool) -> tuple[Literal["good", "bad", "open"], str]:
    """Whether fine-tuning was worth it, in one sentence."""
    metric = benchmark["metric"]
    c = benchmark["protocols"][protocol]["comparisons"][metric]
    sizes = f"{c['queries']:,} test queries of {c['groups']:,} concepts"
    interval = f"95 % interval {c['low']:+.4f} to {c['high']:+.4f}"
    if base_kept:
        return "open", f"No trial was worth its cost: the base as it is was kept ({metric} {c['base']:.3f} on test)."
    if c["low"] > 0:
        relative = f", {c['difference'] / c['base']:+.0%}" if c["base"] > 0 else ""
        return "good", (
            f"Fine-tuning helps: {metric} rises from {c['base']:.3f} to {c['other']:.3f} "
            f"({c['difference']:+.4f}{relative}; {interval}) on {sizes} that neither training nor the search has seen."
        )
    if c["high"] < 0:
        return "bad", (
            f"Fine-tuning hurts: {metric} falls from {c['base']:.3f} to {c['other']:.3f} "
            f"({c['difference']:+.4f}; {interval}) on {sizes}; keep the base."
        )
    return "open", (
        f"No gain is shown: {metric} goes from {c['base']:.3f} to {c['other']:.3f} on {sizes}, but the {interval} "
        "includes zero."
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
