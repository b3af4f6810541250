"""What a classification search says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from search.results.classifier_benchmark import BASELINES, ClassifierBenchmark
from search.screen.summary import compared, interval, shown_path

LOWER = ("log_loss", "ece")  # metrics of which less is better
CLASSES_SHOWN = 30


def print_labels(benchmark: ClassifierBenchmark, console: Console, verdict: tuple[str, str] | None) -> None:
    """Baselines and best on the test part, class by class, and what to make of it."""
    console.print(
        f"Test part: {benchmark.examples:,} examples of {benchmark.groups:,} groups, {len(benchmark.classes)} classes",
        highlight=False,
    )
    table = Table()
    names = list(benchmark.baselines)
    for name in ("metric", *names, "best", f"difference to the {benchmark.against}", "95 % interval", "p"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric, c in benchmark.comparisons.items():
        better, worse = ("red", "green") if metric in LOWER else ("green", "red")
        colour = better if c.low > 0 else worse if c.high < 0 else "yellow"
        table.add_row(
            metric,
            *(f"{benchmark.baselines[name][metric]:.4f}" for name in names),
            *compared(c, colour),
            style="bold" if metric == benchmark.metric else "",
        )
    console.print(table)
    console.print(_classes(benchmark))
    if verdict is not None:
        mood, sentence = verdict
        console.print(sentence, style={"good": "green", "bad": "red"}.get(mood, "yellow"), highlight=False)
    if len(benchmark.candidates) > 1:
        console.print(_candidates(benchmark))
    console.print(benchmark.reason, highlight=False)
    console.print(label_optimism(benchmark), highlight=False)


def label_verdict(benchmark: ClassifierBenchmark) -> tuple[Literal["good", "bad", "open"], str]:
    """Whether fine-tuning was worth it, in one sentence."""
    c = benchmark.comparisons[benchmark.metric]
    told = f"95 % interval {c.low:+.4f} to {c.high:+.4f}"
    sizes = f"{c.queries:,} test examples of {c.groups:,} groups that neither training nor the search has seen"
    baseline = BASELINES[benchmark.against]
    if c.low > 0:
        return "good", (
            f"Fine-tuning helps: {benchmark.metric} is {c.other:.3f}, and {c.base:.3f} for the better baseline, "
            f"{baseline} ({c.difference:+.4f}; {told}), on {sizes}."
        )
    if c.high < 0:
        return "bad", (
            f"Fine-tuning does not pay: {benchmark.metric} is {c.other:.3f}, and {c.base:.3f} for {baseline} "
            f"({c.difference:+.4f}; {told}), on {sizes}; keep the baseline."
        )
    return "open", (
        f"No gain is shown: {benchmark.metric} is {c.other:.3f}, and {c.base:.3f} for the better baseline, {baseline}, "
        f"on {sizes}, but the {told} includes zero."
    )


def label_optimism(benchmark: ClassifierBenchmark) -> str:
    """How much of the winner's dev score was luck of the choice."""
    best, base = benchmark.optimism.best, benchmark.optimism.base
    return (
        f"Optimism: from dev, which chose the model, to test its {benchmark.metric} goes from {best.dev:.4f} to "
        f"{best.test:.4f}; that of the baseline goes from {base.dev:.4f} to {base.test:.4f}."
    )


def print_how_to_load_labels(best: Path, pairs: bool, console: Console) -> None:
    """The exported model's path, and the lines that load it."""
    shown = shown_path(best)
    console.print(f"The best model is in [bold]{shown}[/]. Load it with", highlight=False)
    lines = (
        (
            "from sentence_transformers import CrossEncoder",
            f'CrossEncoder("{shown}").predict([("first text", "second text")], apply_softmax=True)',
        )
        if pairs
        else (
            "from transformers import pipeline",
            f'pipeline("text-classification", model="{shown}", top_k=None)("a text")',
        )
    )
    for line in lines:
        console.print(f"    {line}", highlight=False, soft_wrap=True, markup=False)


def _classes(benchmark: ClassifierBenchmark) -> Table:
    table = Table(title="Each class, the worst first", title_justify="left")
    for name in ("label", "precision", "recall", "F1", "examples", "most often taken for"):
        table.add_column(name, justify="left" if name in ("label", "most often taken for") else "right")
    labels = [one.label for one in benchmark.classes]
    order = sorted(range(len(labels)), key=lambda at: benchmark.classes[at].f1)
    for at in order[:CLASSES_SHOWN]:
        one = benchmark.classes[at]
        wrong = [(count, other) for other, count in enumerate(benchmark.confusion[at]) if other != at]
        count, other = max(wrong)
        taken = f"{labels[other]} ({count})" if count else ""
        table.add_row(one.label, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", str(one.support), taken)
    return table


def _candidates(benchmark: ClassifierBenchmark) -> Table:
    table = Table(title="Candidates: dev, merged, in float32", title_justify="left")
    for name in ("candidate", "trials", f"dev {benchmark.metric}", "against the single"):
        table.add_column(name, justify="left" if name in ("candidate", "trials") else "right")
    for candidate in benchmark.candidates:
        table.add_row(
            candidate.name,
            ", ".join(str(share.trial) for share in candidate.members),
            f"{candidate.dev:.4f}",
            interval(candidate.dev_gain),
            style="bold" if candidate.name == benchmark.best.candidate else "",
        )
    return table
