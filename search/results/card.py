"""What the card of an exported model tells of its search."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.results.benchmark import UNSEEN, Benchmark
from search.results.choice import stage
from search.results.leaderboard import Row
from trainables.data.prepared import load_report
from trainables.export.card import CardFacts, Figure
from trainables.training.rungs import SCORES


def card_facts(run: RunFolder, name: str, row: Row, benchmark: Benchmark | None) -> CardFacts:
    """The trial's scores on dev and, where it was benchmarked, on the test part; the data's size and hash.

    Args:
        name: of the search.
        row: the exported trial's.
        benchmark: null: the model was not benchmarked.
    """
    source = load_report(run.data).config.source
    digest, sizes = hashlib.sha256(), {}
    for part in ("train", "dev", "test"):
        content = (run.data / f"{part}.jsonl").read_bytes()
        digest.update(content)
        sizes[part] = content.count(b"\n")
    queries = len(Scores.load(run.checkpoint(row.trial, row.checkpoint) / SCORES).query_ids)
    figures = [Figure("dev", metric, value, queries) for metric, value in row.metrics.items()]
    notes = [f"Trial {row.trial} of the search {name}; the adapter is merged.{stage(row)}"]
    if benchmark is not None:
        notes.append(f"The test part holds queries {UNSEEN[benchmark.unseen]}.")
        figures += [
            Figure(f"test, {protocol}", metric, c.other, c.queries, c.base, c.low, c.high)
            for protocol, part in benchmark.protocols.items()
            for metric, c in part.comparisons.items()
        ]
    return CardFacts(
        name=f"{name}, trial {row.trial}",
        dataset=Path(source).name if isinstance(source, str) else name,
        figures=figures,
        sizes=sizes,
        data_sha256=digest.hexdigest(),
        notes=notes,
    )
