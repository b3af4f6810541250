"""What the card of an exported model tells of its search."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from evaluation.compare import Comparison
from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.results.benchmark import UNSEEN, Benchmark, Candidate
from search.results.choice import stage
from search.results.leaderboard import Row
from trainables.data.prepared import load_report
from trainables.export.card import CardFacts, Figure
from trainables.training.rungs import SCORES


def trial_facts(run: RunFolder, name: str, row: Row) -> CardFacts:
    """A trial's scores on dev, the data's size and hash.

    Args:
        name: of the search.
    """
    queries = _dev_queries(run, row)
    figures = [Figure("dev", metric, value, queries) for metric, value in row.metrics.items()]
    notes = [f"Trial {row.trial} of the search {name}.{stage(row)}"]
    return _facts(run, name, f"trial {row.trial}", figures, notes)


def candidate_facts(
    run: RunFolder,
    name: str,
    rows: Sequence[Row],
    candidate: Candidate,
    metric: str,
    benchmark: Benchmark | None = None,
) -> CardFacts:
    """A candidate's scores on dev and on the guard and, of the one that was benchmarked, on the test part.

    Args:
        name: of the search.
        rows: the leaderboard.
        metric: that was searched.
        benchmark: of this candidate; None: it was not benchmarked.
    """
    first = next(row for row in rows if row.trial == candidate.trials[0])
    figures = [Figure("dev", metric, candidate.dev, _dev_queries(run, first))]
    notes = [_made_of(name, candidate, first)]
    guard = {metric: candidate.loss}
    if benchmark is not None:
        if benchmark.optimism is not None:  # of both models, among all passages
            best, base = benchmark.optimism.best.dev, benchmark.optimism.base.dev
            figures = [Figure("dev", metric, best, figures[0].queries, base)]
        notes.append(f"The test part holds queries {UNSEEN[benchmark.unseen]}.")
        figures += [
            _figure(f"test, {protocol}", c)
            for protocol, part in benchmark.protocols.items()
            for c in part.comparisons.values()
        ]
        if benchmark.guard is not None:
            notes.append(benchmark.guard.reason)
            guard = benchmark.guard.part.comparisons
        if benchmark.old_test is not None:
            figures += [_figure("test of the run before", c) for c in benchmark.old_test.comparisons.values()]
    figures += [_figure("guard", c) for c in guard.values()]
    return _facts(run, name, candidate.name, figures, notes)


def _made_of(name: str, candidate: Candidate, first: Row) -> str:
    trials = ", ".join(map(str, candidate.trials))
    if len(candidate.trials) > 1:
        return f"Made of trials {trials} of the search {name}, averaged and merged in float32."
    if len(candidate.members) > 1:
        return f"The last {len(candidate.members)} rungs of trial {trials} of the search {name}, averaged in float32."
    return f"Made of trial {trials} of the search {name}.{stage(first)}"


def _facts(run: RunFolder, name: str, model: str, figures: list[Figure], notes: list[str]) -> CardFacts:
    source = load_report(run.data).config.source
    digest, sizes = hashlib.sha256(), {}
    for part in ("train", "dev", "test"):
        content = (run.data / f"{part}.jsonl").read_bytes()
        digest.update(content)
        sizes[part] = content.count(b"\n")
    return CardFacts(
        name=f"{name}, {model}",
        dataset=Path(source).name if isinstance(source, str) else name,
        figures=figures,
        sizes=sizes,
        data_sha256=digest.hexdigest(),
        notes=notes,
    )


def _dev_queries(run: RunFolder, row: Row) -> int:
    return len(Scores.load(run.checkpoint(row.trial, row.checkpoint) / SCORES).query_ids)


def _figure(part: str, c: Comparison) -> Figure:
    """Of this model against its base."""
    return Figure(part, c.metric, c.other, c.queries, c.base, c.low, c.high)
