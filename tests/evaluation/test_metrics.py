"""Metrics against ir_measures, and against values worked out by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from evaluation.errors import InputError
from evaluation.index import top_k
from evaluation.metrics import Judgements, depth, parse_metric, score

KS = (1, 3, 5, 10, 20, 100)
ORACLE = {"recall": "R", "precision": "P", "success": "Success", "ndcg": "nDCG", "map": "AP", "context_recall": "R"}
Qrels = dict[str, dict[str, int]]


def random_qrels(rng: np.random.Generator, queries: int, corpus: int, top_grade: int) -> Qrels:
    """Grades 0..top_grade on some passages, at least one above 0 for each query."""
    qrels: Qrels = {}
    for query in range(queries):
        judged = rng.choice(corpus, size=rng.integers(1, 40), replace=False)
        grades = rng.integers(0, top_grade + 1, size=len(judged))
        grades[0] = top_grade
        qrels[f"q{query}"] = {f"p{p}": int(g) for p, g in zip(judged, grades, strict=True)}
    return qrels


def oracle(qrels: Qrels, run: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """metric -> query -> value, by ir_measures (trec_eval)."""
    names = {f"{ours}@{k}": ir_measures.parse_measure(f"{theirs}@{k}") for ours, theirs in ORACLE.items() for k in KS}
    names["rr"] = ir_measures.RR
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for measured in ir_measures.iter_calc(list(set(names.values())), qrels, run):
        for name, measure in names.items():
            if measure == measured.measure:
                values[name][measured.query_id] = measured.value
    # trec_eval has no cut-off for the reciprocal rank, so it is cut here.
    for k in KS:
        values[f"mrr@{k}"] = {q: v if v >= 1 / k - 1e-12 else 0.0 for q, v in values["rr"].items()}
    del values["rr"]
    return values


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 3])
def test_equal_to_ir_measures(seed: int, levels: int | None) -> None:
    """Random rankings, and rankings full of ties (levels: embeddings of so many different integers)."""
    rng = np.random.default_rng(seed)
    size, dimensions = 300, 6
    if levels is None:
        queries, corpus = (rng.standard_normal((n, dimensions)) for n in (30, size))
    else:
        queries, corpus = (rng.integers(0, levels, (n, dimensions)).astype(np.float64) for n in (30, size))
    qrels = random_qrels(rng, len(queries), size, top_grade=1 + seed)
    query_ids = list(qrels)
    corpus_ids = sorted((f"p{p}" for p in range(size)), reverse=True)  # the order in which evaluate() has them
    scores_QC = (queries @ corpus.T).astype(np.float32)
    run = {
        query: {passage: float(scores_QC[row, int(passage[1:])]) for passage in corpus_ids}
        for row, query in enumerate(query_ids)
    }
    rows = [int(passage[1:]) for passage in corpus_ids]
    _, ranking_QK = top_k(queries.astype(np.float32), corpus[rows].astype(np.float32), max(KS))
    expected = oracle(qrels, run)
    if levels is not None:
        assert any(len(set(values.values())) < size for values in run.values())

    found = score(ranking_QK, Judgements.of(qrels, query_ids, corpus_ids), list(expected))

    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [values[q] for q in query_ids], rtol=0, atol=1e-9, err_msg=name)


def test_by_hand() -> None:
    """One query, relevant passages b (2) and d (1), ranking a b c d: worked out on paper."""
    judgements = Judgements.of({"q": {"b": 2, "d": 1, "e": 0}}, ["q"], ["a", "b", "c", "d", "e"])
    names = ["recall@1", "recall@2", "precision@4", "success@1", "success@2", "mrr@4", "map@4", "ndcg@4"]
    found = score(np.array([[0, 1, 2, 3]]), judgements, names)
    ideal = 2 / 1 + 1 / np.log2(3)
    expected = [0, 0.5, 0.5, 0, 1, 0.5, (1 / 2 + 2 / 4) / 2, (2 / np.log2(3) + 1 / np.log2(5)) / ideal]
    np.testing.assert_allclose([found[name][0] for name in names], expected, atol=1e-12)


def test_grade_below_one_is_not_relevant() -> None:
    judgements = Judgements.of({"q": {"a": -2, "b": 0, "c": 1}}, ["q"], ["a", "b", "c"])
    found = score(np.array([[0, 1, 2]]), judgements, ["recall@2", "mrr@3", "ndcg@3"])
    assert found["recall@2"][0] == 0
    assert found["mrr@3"][0] == pytest.approx(1 / 3)
    assert found["ndcg@3"][0] == pytest.approx(1 / np.log2(4))


def test_corpus_smaller_than_k() -> None:
    """precision@k divides by k, RAGAS's context precision by the passages retrieved."""
    found = score(
        np.array([[1, 0]]), Judgements.of({"q": {"b": 1}}, ["q"], ["a", "b"]), ["precision@10", "context_precision@10"]
    )
    assert found["precision@10"][0] == pytest.approx(0.1)
    assert found["context_precision@10"][0] == pytest.approx(0.5)


def test_ragas_definition() -> None:
    """RAGAS's id-based metrics are set overlaps: over the retrieved ids, and over the reference ids."""
    rng = np.random.default_rng(0)
    qrels = random_qrels(rng, 20, 50, 1)
    corpus_ids = [f"p{p}" for p in range(50)]
    ranking_QK = np.array([rng.permutation(50)[:7] for _ in qrels])
    found = score(
        ranking_QK, Judgements.of(qrels, list(qrels), corpus_ids), ["context_precision@7", "context_recall@7"]
    )
    for row, grades in enumerate(qrels.values()):
        retrieved = {corpus_ids[p] for p in ranking_QK[row]}
        reference = {passage for passage, grade in grades.items() if grade > 0}
        assert found["context_precision@7"][row] == pytest.approx(len(retrieved & reference) / len(retrieved))
        assert found["context_recall@7"][row] == pytest.approx(len(retrieved & reference) / len(reference))


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "ndcg@ten", "NDCG@10", "hits@3", ""])
def test_unknown_metric_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected one of recall"):
        parse_metric(name)


def test_depth_needs_metrics() -> None:
    assert depth(["recall@1", "map@20"]) == 20
    with pytest.raises(InputError, match="no metrics"):
        depth([])


def test_short_ranking_is_refused() -> None:
    judgements = Judgements.of({"q": {"a": 1}}, ["q"], ["a", "b", "c"])
    with pytest.raises(InputError, match="rankings hold 2"):
        score(np.array([[0, 1]]), judgements, ["ndcg@10"])
