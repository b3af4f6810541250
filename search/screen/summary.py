"""What a search says at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from evaluation.compare import Comparison
from evaluation.task import Protocol
from search.paths import RunFolder
from search.results.benchmark import UNSEEN, Benchmark
from search.results.leaderboard import Row

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


def print_benchmark(benchmark: Benchmark, console: Console, verdict: tuple[str, str] | None) -> None:
    """Base against best on the test part, and what to make of it: `gain`'s answer, None where there is none."""
    parts = {f"Test part, protocol {name} ({RELEVANT[name]})": part for name, part in benchmark.protocols.items()}
    if benchmark.old_test is not None:
        parts["Test part of the run that this one continues"] = benchmark.old_test
    for title, part in parts.items():
        console.print(
            f"{title}: {part.queries} queries of {part.concepts} concepts, {part.passages} passages",
            highlight=False,
        )
        table = Table()
        for name in ("metric", "base", "best", "difference", "95 % interval", "p"):
            table.add_column(name, justify="left" if name == "metric" else "right")
        for metric, c in part.comparisons.items():
            colour = "green" if c.low > 0 else "red" if c.high < 0 else "yellow"
            table.add_row(
                metric,
                f"{c.base:.4f}",
                *compared(c, colour),
                style="bold" if metric == benchmark.metric else "",
            )
        console.print(table)
        for line in part.left_out:
            console.print(line, style="dim", highlight=False, markup=False)
    if verdict is not None:
        mood, sentence = verdict
        console.print(sentence, style={"good": "green", "bad": "red"}.get(mood, "yellow"), highlight=False)
    if benchmark.candidates:
        console.print(candidates_table(benchmark))
    for line in (
        picked(benchmark),
        guarded(benchmark),
        forgetting(benchmark),
        pool(benchmark),
        optimism(benchmark),
    ):
        if line:
            console.print(line, highlight=False)


def candidates_table(benchmark: Benchmark) -> Table:
    """What could have been exported; the model in `best/` in bold."""
    table = Table(title="Candidates: dev and guard, merged, in float32", title_justify="left")
    names = ["candidate", "trials", f"dev {benchmark.metric}", "against the single", "guard", "loss to the base"]
    continued = any(candidate.old_loss is not None for candidate in benchmark.candidates)
    for name in (*names, *(["loss on the earlier test"] if continued else [])):
        table.add_column(name, justify="left" if name in ("candidate", "trials") else "right")
    for candidate in benchmark.candidates:
        table.add_row(
            candidate.name,
            ", ".join(map(str, candidate.trials)),
            f"{candidate.dev:.4f}",
            interval(candidate.dev_gain),
            f"{candidate.guard:.4f}",
            interval(lost(candidate.loss)),
            *([interval(candidate.old_loss and lost(candidate.old_loss))] if continued else []),
            style="bold" if candidate.name == benchmark.best.candidate else "",
        )
    return table


def compared(c: Comparison, colour: str) -> tuple[str, ...]:
    """Cells of a table: the model's score, its difference, the 95 % interval of that, p."""
    return (
        f"{c.other:.4f}",
        f"[{colour}]{c.difference:+.4f}[/]",
        f"{c.low:+.4f} to {c.high:+.4f}",
        f"{c.p_value:.4f}",
    )


def interval(c: Comparison | None) -> str:
    """A difference with its 95 % interval; empty without one."""
    return "" if c is None else f"{c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f})"


def lost(c: Comparison) -> Comparison:
    """The same difference as a loss: base minus model."""
    return replace(c, difference=-c.difference, low=-c.high, high=-c.low)


def picked(benchmark: Benchmark) -> str:
    """Which candidate was exported and why; empty in runs of earlier versions."""
    return "" if benchmark.guard is None else benchmark.guard.reason


def guarded(benchmark: Benchmark) -> str:
    """What the exported model has forgotten; empty in runs of earlier versions."""
    if benchmark.guard is None:
        return ""
    c, tolerance = benchmark.guard.part.comparisons[benchmark.metric], benchmark.guard.tolerance
    verdict = "within" if benchmark.guard.within else "MORE than"
    return (
        f"Guard: on {c.queries:,} questions that nothing was tuned on {benchmark.metric} goes from {c.base:.4f} to "
        f"{c.other:.4f} ({c.difference:+.4f}, 95 % {c.low:+.4f} to {c.high:+.4f}), {verdict} the loss of {tolerance:g} "
        "that guard.tolerance accepts."
    )


def forgetting(benchmark: Benchmark) -> str:
    """How the test part of the run that this one continues fares under the new model; empty where it continues none."""
    if benchmark.old_test is None:
        return ""
    c = benchmark.old_test.comparisons[benchmark.metric]
    verdict = "has forgotten" if c.high < 0 else "has even gained" if c.low > 0 else "shows no loss"
    return (
        f"No-forgetting check: on the earlier run's test part the new model {verdict}: {benchmark.metric} "
        f"{c.base:.4f} before, {c.other:.4f} now, {c.difference:+.4f} "
        f"(95 % {c.low:+.4f} to {c.high:+.4f})."
    )


def pool(benchmark: Benchmark) -> str:
    """The winner's dev score among the passages that the search compared trials on, and among all; empty without."""
    p = benchmark.dev_pool
    if p is None:
        return ""
    return (
        f"Dev pool: the leaderboard's dev scores are of {p.passages:,} of {p.of:,} passages. The winner's "
        f"{benchmark.metric} is {p.pooled:.4f} there and {p.whole:.4f} on the whole corpus."
    )


def optimism(benchmark: Benchmark) -> str:
    """How much of the winner's dev score was luck of the choice, beside the base's; empty where it is not known."""
    if benchmark.optimism is None:
        return ""
    best, base = benchmark.optimism.best, benchmark.optimism.base
    luck = round(best.difference - base.difference, 4)
    return (
        f"Optimism: from dev, which chose the model, to test its {benchmark.metric} goes from {best.dev:.4f} to "
        f"{best.test:.4f}, that of its base, which nothing chose, from {base.dev:.4f} to {base.test:.4f}: dev "
        + (f"flatters the choice by about {luck:.4f}." if luck > 0 else "does not flatter the choice.")
    )


def gain(benchmark: Benchmark, protocol: Protocol, base_kept: bool) -> tuple[Literal["good", "bad", "open"], str]:
    """Whether fine-tuning was worth it, in one sentence."""
    metric = benchmark.metric
    c = benchmark.protocols[protocol].comparisons[metric]
    sizes = f"{c.queries:,} test queries of {c.groups:,} concepts"
    unseen = UNSEEN[benchmark.unseen]
    interval = f"95 % interval {c.low:+.4f} to {c.high:+.4f}"
    if base_kept:
        return "open", f"No trial was worth its cost: the base as it is was kept ({metric} {c.base:.3f} on test)."
    if c.low > 0:
        relative = f", {c.difference / c.base:+.0%}" if c.base > 0 else ""
        return "good", (
            f"Fine-tuning helps: {metric} rises from {c.base:.3f} to {c.other:.3f} "
            f"({c.difference:+.4f}{relative}; {interval}) on {sizes} {unseen}."
        )
    if c.high < 0:
        return "bad", (
            f"Fine-tuning hurts: {metric} falls from {c.base:.3f} to {c.other:.3f} "
            f"({c.difference:+.4f}; {interval}) on {sizes}; keep the base."
        )
    return "open", (
        f"No gain is shown: {metric} goes from {c.base:.3f} to {c.other:.3f} on {sizes}, but the {interval} "
        "includes zero."
    )


def shown_path(path: Path) -> str:
    """Relative to where the user is, if it is below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_how_to_load(run: RunFolder, console: Console) -> None:
    """Where the exported model is, and the lines that load it."""
    from evaluation.benchmark.models import runs_code

    shown = run.best.name if run.url else shown_path(run.best)
    console.print(
        f"The best model is in [bold]{run.url + '/' if run.url else ''}{shown}[/]. Load it with", highlight=False
    )
    if run.url:
        console.print(f"    embtune export {run.url} {shown}", highlight=False, soft_wrap=True)
    console.print("    from sentence_transformers import SentenceTransformer", highlight=False)
    code = ", trust_remote_code=True" if runs_code(run.best) else ""
    console.print(f'    model = SentenceTransformer("{shown}"{code})', highlight=False, soft_wrap=True)
