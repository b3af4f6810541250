"""Scoring and whole evaluation beside sentence-transformers' InformationRetrievalEvaluator, on the same embeddings.

    python benchmarks/metrics.py [--queries 5000] [--corpus 20000] [--model MODEL] [--out FILE]

Three things are timed, each several times with the two sides in turn, and their medians are kept:
- scoring: rankings of k = 100 -> means of the same metrics (theirs: compute_metrics on the hits as it holds them);
- search and scoring: embeddings -> means (theirs: compute_all_metrics, its own top-k and compute_metrics);
- whole evaluation: texts -> means, with a MiniLM where one is given by --model.
Both sides' means are checked to be equal before anything is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from evaluation.files import write_whole
from evaluation.index import top_k
from evaluation.metrics import score
from evaluation.retrieval import TaskEmbeddings, evaluate, score_embeddings
from evaluation.task import RetrievalTask
from trainables.export.merge import base_model

# The metrics that both define alike: their MAP divides by min(k, relevant), ours as trec_eval by all relevant ones.
NAMES = {
    **{f"recall@{k}": f"recall@{k}" for k in (1, 5, 10, 100)},
    **{f"precision@{k}": f"precision@{k}" for k in (1, 5, 10, 100)},
    **{f"success@{k}": f"accuracy@{k}" for k in (1, 5, 10, 100)},
    **{f"mrr@{k}": f"mrr@{k}" for k in (10, 100)},
    **{f"ndcg@{k}": f"ndcg@{k}" for k in (10, 100)},
}
METRICS = list(NAMES)
DEPTH = 100


class Precomputed:
    """Stands in the place of a model for both sides: its embeddings are made before the clock starts."""

    def __init__(self, queries_QD: NDArray[np.float32], corpus_CD: NDArray[np.float32]) -> None:
        self.queries, self.corpus = torch.from_numpy(queries_QD), torch.from_numpy(corpus_CD)

    def encode_query(self, inputs: list[str], **_: Any) -> torch.Tensor:
        return self.queries

    def encode_document(self, inputs: list[str], **_: Any) -> torch.Tensor:
        start = int(inputs[0])  # the evaluator asks for the corpus in chunks, whose texts are their positions
        return self.corpus[start : start + len(inputs)]


def random_embeddings(queries: int, corpus: int, dimensions: int, seed: int = 0) -> TaskEmbeddings:
    """Unit vectors in which a query lies near its three relevant passages."""
    rng = np.random.default_rng(seed)
    corpus_CD = rng.standard_normal((corpus, dimensions)).astype(np.float32)
    relevant_QR = rng.integers(0, corpus, (queries, 3))
    queries_QD = corpus_CD[relevant_QR].mean(axis=1) + 1.5 * rng.standard_normal((queries, dimensions))
    corpus_CD /= np.linalg.norm(corpus_CD, axis=1, keepdims=True)
    queries_QD = (queries_QD / np.linalg.norm(queries_QD, axis=1, keepdims=True)).astype(np.float32)
    corpus_ids = [f"p{p:07d}" for p in range(corpus)]
    task = RetrievalTask(
        name="random",
        corpus={passage: str(p) for p, passage in enumerate(corpus_ids)},
        queries={f"q{q}": str(q) for q in range(queries)},
        qrels={f"q{q}": {corpus_ids[p]: 1 for p in row} for q, row in enumerate(relevant_QR)},
    )
    return TaskEmbeddings(task, tuple(task.queries), tuple(corpus_ids), queries_QD, corpus_CD)


def their_evaluator(task: RetrievalTask, batch_size: int = 64) -> InformationRetrievalEvaluator:
    """The evaluator of sentence-transformers with the metrics of NAMES."""
    return InformationRetrievalEvaluator(
        {**task.queries},
        {**task.corpus},
        {query: set(grades) for query, grades in task.qrels.items()},
        mrr_at_k=[10, DEPTH],
        ndcg_at_k=[10, DEPTH],
        accuracy_at_k=[1, 5, 10, DEPTH],
        precision_recall_at_k=[1, 5, 10, DEPTH],
        map_at_k=[DEPTH],
        batch_size=batch_size,
        write_csv=False,
        score_functions={"cosine": sentence_transformers.util.cos_sim},
    )


def in_turn(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; they take turns, so a busy moment of the machine meets both."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return medians | {"ratio": medians["sentence_transformers"] / medians["embtune"]}


def flat(nested: Any) -> dict[str, float]:
    """Their {"cosine": {"recall@k": {5: value}}} as {"cosine_recall@5": value}."""
    return {
        f"{function}_{name.replace('@k', f'@{k}')}": value
        for function, measures in nested.items()
        for name, values in measures.items()
        for k, value in values.items()
    }


def check_equal(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest difference between the means of the two sides."""
    largest = max(abs(ours[name] - theirs[f"cosine_{other}"]) for name, other in NAMES.items())
    if largest > 1e-6:
        raise SystemExit(f"the two sides differ by {largest}: no figures are written")
    return largest


def on_embeddings(queries: int, corpus: int, dimensions: int, repeats: int) -> dict[str, Any]:
    """Scoring alone, and search with scoring."""
    embeddings = random_embeddings(queries, corpus, dimensions)
    evaluator = their_evaluator(embeddings.task)
    stand_in: Any = Precomputed(embeddings.queries_QD, embeddings.corpus_CD)
    difference = check_equal(score_embeddings(embeddings, METRICS).means, flat(evaluator.compute_all_metrics(stand_in)))

    scores_QK, ranking_QK = top_k(embeddings.queries_QD, embeddings.corpus_CD, DEPTH)
    judgements = embeddings.judgements()
    hits: list[object] = [
        [{"corpus_id": embeddings.corpus_ids[p], "score": float(s)} for s, p in zip(scores, ids, strict=True)]
        for scores, ids in zip(scores_QK, ranking_QK, strict=True)
    ]
    scoring = in_turn(
        {
            "embtune": lambda: score(ranking_QK, judgements, METRICS),
            "sentence_transformers": lambda: evaluator.compute_metrics(hits),
        },
        repeats,
    )
    scoring["embtune_judgements_once"] = in_turn(
        {"embtune": embeddings.judgements, "sentence_transformers": lambda: None}, repeats
    )["embtune"]
    whole = in_turn(
        {
            "embtune": lambda: score_embeddings(embeddings, METRICS),
            "sentence_transformers": lambda: evaluator.compute_all_metrics(stand_in),
        },
        repeats,
    )
    size = {"queries": queries, "corpus": corpus, "dimensions": dimensions, "k": DEPTH}
    return {**size, "scoring_s": scoring, "search_and_scoring_s": whole, "largest_difference": difference}


def on_texts(name: str, repeats: int) -> dict[str, Any]:
    """Whole evaluations, encoding included, of short French texts."""
    model = base_model(name)
    words = ["le", "service", "de", "la", "direction", "générale", "recouvre", "impôt", "et", "tient", "les", "comptes"]
    rng = np.random.default_rng(0)
    corpus = {f"p{p:04d}": " ".join(rng.choice(words, 24)) for p in range(300)}
    queries = {f"q{q}": " ".join(corpus[f"p{q:04d}"].split()[:6]) for q in range(150)}
    task = RetrievalTask("texts", corpus, queries, {f"q{q}": {f"p{q:04d}": 1} for q in range(150)})
    evaluator = their_evaluator(task)
    difference = check_equal(evaluate(model, task, METRICS).means, evaluator(model))
    seconds = in_turn(
        {
            "embtune": lambda: evaluate(model, task, METRICS),
            "sentence_transformers": lambda: evaluator(model),
        },
        repeats,
    )
    return {"queries": 150, "corpus": 300, "whole_evaluation_s": seconds, "largest_difference": difference}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": faiss.__version__,
        "torch": torch.__version__,
        "sentence_transformers": sentence_transformers.__version__,
    }


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--corpus", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="hub id or folder, for the evaluation of texts; none: left out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/metrics.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "machine": machine()}
    print(f"{options.queries} queries x {options.corpus} passages, {options.repeats} times each", flush=True)
    result["embeddings"] = on_embeddings(options.queries, options.corpus, options.dimensions, options.repeats)
    print(json.dumps(result["embeddings"], indent=2), flush=True)
    if options.model:
        result["texts"] = on_texts(options.model, options.repeats)
        print(json.dumps(result["texts"], indent=2), flush=True)
    result["machine"]["load_average_at_end"] = round(os.getloadavg()[0], 2)
    write_whole(options.out, json.dumps(result, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
