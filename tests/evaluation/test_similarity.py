"""Cosine protocols against loops over all pairs, on real tiny transformers; encoding speed."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from evaluation.benchmark.similarity import mini_retrieval, near_concepts, pairs, pairwise, random_negatives, triplets
from evaluation.benchmark.speed import measure_speed
from evaluation.errors import InputError
from evaluation.retrieval import TaskEmbeddings, embed_task
from evaluation.task import RetrievalTask
from tests.conftest import TEXTS, TinyBase


@pytest.fixture(scope="module")
def model(tiny_base: TinyBase) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_base("bert")), device="cpu")


@pytest.fixture(scope="module")
def embeddings(model: SentenceTransformer) -> TaskEmbeddings:
    rng = np.random.default_rng(1)
    words = " ".join(TEXTS).split()
    passages = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    anchors = [" ".join(passage.split()[:4]) for passage in passages]
    return embed_task(model, RetrievalTask.from_pairs("t", anchors, passages, [i // 2 for i in range(60)]))


def by_hand(embeddings: TaskEmbeddings) -> list[tuple[float, list[float]]]:
    """For each pair its cosine and those of the query with all passages that are not relevant to it."""
    rows = []
    for query, vector in zip(embeddings.query_ids, embeddings.queries_QD, strict=True):
        grades = embeddings.task.qrels[query]
        cosines = {
            p: float(vector @ other) for p, other in zip(embeddings.corpus_ids, embeddings.corpus_CD, strict=True)
        }
        rows += [(cosines[p], [c for other, c in cosines.items() if other not in grades]) for p in grades]
    return rows


def test_pairwise(embeddings: TaskEmbeddings) -> None:
    found = pairwise(embeddings)
    rows = by_hand(embeddings)
    np.testing.assert_allclose(np.sort(found.cosines_N), np.sort([cosine for cosine, _ in rows]), atol=1e-6)
    assert (found.minimum, found.maximum) == (found.cosines_N.min(), found.cosines_N.max())
    assert found.mean == pytest.approx(np.mean(found.cosines_N), abs=1e-6)
    assert found.median == pytest.approx(np.median(found.cosines_N), abs=1e-6)
    # Over many seeds the random negative's accuracy is the share of all negatives that lie below.
    expected = np.mean([np.mean(np.array(negatives) < cosine) for cosine, negatives in rows])
    assert np.mean([pairwise(embeddings, seed).accuracy for seed in range(40)]) == pytest.approx(expected, abs=0.02)


def test_mini_retrieval(embeddings: TaskEmbeddings) -> None:
    """The chance that none of 19 drawn negatives reaches the positive, from the number that do (hypergeometric)."""
    expected = []
    for cosine, negatives in by_hand(embeddings):
        above, count = int(np.sum(np.array(negatives) >= cosine)), len(negatives)
        expected.append(np.prod([(count - above - i) / (count - i) for i in range(19)]))
    found = np.mean([mini_retrieval(embeddings, seed=seed) for seed in range(60)])
    assert found == pytest.approx(np.mean(expected), abs=0.03)
    assert mini_retrieval(embeddings, seed=5) == mini_retrieval(embeddings, seed=5)


def test_negatives_are_distinct_and_not_relevant(embeddings: TaskEmbeddings) -> None:
    query_N, _ = pairs(embeddings)
    drawn = random_negatives(embeddings, query_N, 57)
    for query, row in zip(query_N, drawn, strict=True):
        relevant = embeddings.task.qrels[embeddings.query_ids[query]]
        assert len(set(row)) == 57
        assert not {embeddings.corpus_ids[p] for p in row} & set(relevant)
    with pytest.raises(InputError, match="fewer than 59 passages that are not relevant"):
        random_negatives(embeddings, query_N, 59)


def test_near_concepts(embeddings: TaskEmbeddings) -> None:
    margins = [cosine - max(negatives) for cosine, negatives in by_hand(embeddings)]
    found = near_concepts(embeddings)
    np.testing.assert_allclose(np.sort(found.margins_N), np.sort(margins), atol=1e-6)
    assert found.margin == pytest.approx(np.mean(margins), abs=1e-6)
    assert found.accuracy == pytest.approx(np.mean(np.array(margins) > 0))


def test_whole_corpus_relevant_is_refused(model: SentenceTransformer) -> None:
    task = RetrievalTask.from_pairs("t", ["a", "b"], ["x", "y"], [1, 1])
    with pytest.raises(InputError, match="query 'q0' has fewer than 1 passages"):
        near_concepts(embed_task(model, task))


def test_triplets(model: SentenceTransformer) -> None:
    anchors, positives, negatives = TEXTS[:2], TEXTS[2:4], TEXTS[4:6]
    found = triplets(model, anchors, positives, negatives)
    a = model.encode_query(list(anchors), normalize_embeddings=True)
    p, n = (model.encode_document(list(texts), normalize_embeddings=True) for texts in (positives, negatives))
    expected = (a * p).sum(axis=1) - (a * n).sum(axis=1)
    np.testing.assert_allclose(found.margins_N, expected, atol=1e-5)
    assert triplets(model, anchors, positives, positives).accuracy == 0  # a tie is not a separation
    with pytest.raises(InputError, match="triplets with columns of lengths"):
        triplets(model, anchors, positives, negatives[:1])


def test_speed(model: SentenceTransformer) -> None:
    found = measure_speed(model, TEXTS, tokens=(8, 64, 100_000), batch_size=8, seconds=0.2)
    assert [speed.tokens for speed in found] == [8, 64]
    assert all(speed.texts_per_second > 0 and speed.latency_ms > 0 for speed in found)
    with pytest.raises(InputError, match="hold no words"):
        measure_speed(model, [" "])
