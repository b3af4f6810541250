"""What a benchmark row can say besides retrieval: cosines, separation, truncated sizes, speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sentence_transformers import SentenceTransformer

from evaluation.benchmark.similarity import mini_retrieval, near_concepts, pairwise, triplets
from evaluation.benchmark.speed import measure_speed
from evaluation.errors import InputError
from evaluation.retrieval import TaskEmbeddings, score_embeddings

CONTEXT = ("precision@5", "recall@5", "precision@10", "recall@10")


def model_details(
    model: SentenceTransformer, embeddings: TaskEmbeddings, metric: str, batch_size: int = 64
) -> dict[str, Any]:
    """A JSON-ready record of the cosine protocols, of the metric at truncated sizes and of the encoding speed.

    A protocol that the task is too small for is null, with the reason beside it under "<protocol>_left_out". Context
    precision and recall are RAGAS's by ids: the relevant share of the k passages found, and the found share of the
    relevant ones. Triplets are there where the task gives negatives.
    """
    record: dict[str, Any] = {}
    for name, protocol in (("pairwise", _pairwise), ("mini_retrieval", _mini), ("near_concepts", _near)):
        try:
            record[name] = protocol(embeddings)
        except InputError as error:
            record |= {name: None, f"{name}_left_out": str(error)}
    if given := embeddings.task.triplets:
        anchors, positives, negatives = zip(*given, strict=True)
        separation = triplets(model, anchors, positives, negatives, batch_size)
        record["triplets"] = {"margin": separation.margin, "accuracy": separation.accuracy}
    record["context"] = score_embeddings(embeddings, CONTEXT).means
    record["truncated"] = truncated_scores(embeddings, metric)
    texts = list(embeddings.task.corpus.values())
    record["speed"] = [asdict(speed) for speed in measure_speed(model, texts, batch_size=batch_size)]
    return record


def truncated_scores(
    embeddings: TaskEmbeddings, metric: str, dimensions: Sequence[int] | None = None
) -> dict[int, float]:
    """The metric's mean with the first dimensions alone; none given: halves, down to 32."""
    full = embeddings.queries_QD.shape[1]
    sizes = dimensions or [full // 2**power for power in range(1, 10) if full // 2**power >= 32]
    return {size: score_embeddings(embeddings.truncated(size), [metric]).means[metric] for size in sizes}


def _pairwise(embeddings: TaskEmbeddings) -> dict[str, float]:
    found = pairwise(embeddings)
    return {
        "mean": found.mean,
        "median": found.median,
        "min": found.minimum,
        "max": found.maximum,
        "accuracy": found.accuracy,
    }


def _mini(embeddings: TaskEmbeddings) -> dict[str, float]:
    return {"recall@1": mini_retrieval(embeddings), "negatives": 19}


def _near(embeddings: TaskEmbeddings) -> dict[str, float]:
    found = near_concepts(embeddings)
    return {"margin": found.margin, "accuracy": found.accuracy}
