"""evaluate() on a real tiny transformer, against sentence-transformers and ir_measures; the cache of embeddings."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from evaluation.benchmark.details import truncated_scores
from evaluation.embedding_cache import EmbeddingCache, content_hash
from evaluation.embeddings import embed
from evaluation.errors import InputError
from evaluation.retrieval import Scores, embed_task, evaluate
from evaluation.task import RetrievalTask
from tests.conftest import TEXTS, TinyBase


@pytest.fixture(scope="module")
def model_path(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture(scope="module")
def model(model_path: Path) -> SentenceTransformer:
    return SentenceTransformer(str(model_path), device="cpu")


@pytest.fixture(scope="module")
def task() -> RetrievalTask:
    rng = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    corpus = {f"p{i}": " ".join(rng.choice(words, rng.integers(3, 30))) for i in range(120)}
    queries = {f"q{i}": " ".join(corpus[f"p{i}"].split()[:3]) for i in range(25)}
    qrels = {f"q{i}": {f"p{i}": 2, f"p{i + 30}": 1, f"p{i + 60}": 0} for i in range(25)}
    return RetrievalTask("tiny", corpus, queries, qrels, {f"q{i}": f"c{i // 2}" for i in range(25)})


def test_equal_to_ir_measures_on_the_task_s_own_ids(model: SentenceTransformer, task: RetrievalTask) -> None:
    """The whole path: prompts, encoding, search, ties by id as trec_eval has them, metrics."""
    found = evaluate(model, task, ["ndcg@10", "recall@5", "map@10"])
    queries = model.encode_query(list(task.queries.values()), normalize_embeddings=True)
    corpus = model.encode_document(list(task.corpus.values()), normalize_embeddings=True)
    run = {
        query: dict(zip(task.corpus, map(float, row), strict=True))
        for query, row in zip(task.queries, queries @ corpus.T, strict=True)
    }
    for name, measure in (("ndcg@10", "nDCG@10"), ("recall@5", "R@5"), ("map@10", "AP@10")):
        expected = {
            m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.parse_measure(measure)], task.qrels, run)
        }
        np.testing.assert_allclose(found.per_query[name], [expected[q] for q in found.query_ids], atol=1e-9)
    assert found.means["ndcg@10"] == pytest.approx(float(np.mean(found.per_query["ndcg@10"])))
    assert found.top_ids_QK.shape == (25, 10)
    assert set(found.top_ids_QK.ravel()) <= set(task.corpus)


def test_equal_to_sentence_transformers_evaluator(model: SentenceTransformer, task: RetrievalTask) -> None:
    relevant = {query: {p for p, grade in grades.items() if grade > 0} for query, grades in task.qrels.items()}
    theirs = InformationRetrievalEvaluator({**task.queries}, {**task.corpus}, relevant, write_csv=False)(model)
    ours = evaluate(model, task, ["recall@5", "mrr@10", "precision@3", "success@5"]).means
    names = {"recall@5": "recall@5", "mrr@10": "mrr@10", "precision@3": "precision@3", "success@5": "accuracy@5"}
    for name, their_name in names.items():
        assert ours[name] == pytest.approx(theirs[f"cosine_{their_name}"], abs=1e-9)


def test_prompts_of_the_model_are_used(model_path: Path, task: RetrievalTask) -> None:
    other = SentenceTransformer(str(model_path), device="cpu")
    prompt = other.prompts["query"]
    assert prompt
    found = embed(other, ["DGFiP"], "query")
    other.prompts["query"] = ""
    np.testing.assert_allclose(found, embed(other, [prompt + "DGFiP"], "query"), atol=1e-6)
    assert np.abs(found - embed(other, ["DGFiP"], "query")).max() > 1e-4


def test_bf16_model_gives_unit_float32_rows(model_path: Path) -> None:
    half = SentenceTransformer(str(model_path), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    rows = embed(half, TEXTS, "document")
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_scores_round_trip(model: SentenceTransformer, task: RetrievalTask, tmp_path: Path) -> None:
    scores = evaluate(model, task)
    scores.save(tmp_path / "deep" / "scores.npz")
    read = Scores.load(tmp_path / "deep" / "scores.npz")
    assert (read.query_ids, read.groups, read.means) == (scores.query_ids, scores.groups, scores.means)
    np.testing.assert_array_equal(read.top_ids_QK, scores.top_ids_QK)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.npz"]
    with pytest.raises(InputError, match="no such file"):
        Scores.load(tmp_path / "other.npz")


def test_truncated_dimensions(model: SentenceTransformer, task: RetrievalTask) -> None:
    """The same as the model's own truncation."""
    embeddings = embed_task(model, task)
    assert truncated_scores(embeddings, "ndcg@10", [32, 8])[32] == evaluate(model, task, ["ndcg@10"]).means["ndcg@10"]
    short = model.encode_query(list(task.queries.values()), truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(embeddings.truncated(8).queries_QD, short, atol=1e-5)
    with pytest.raises(InputError, match="truncated to 33 dimensions, expected 1 to 32"):
        embeddings.truncated(33)


class Broken:
    """A real encoder whose numbers are spoilt afterwards: what a diverged model gives."""

    def __init__(self, model: SentenceTransformer, query_dimensions: int = 32, nan_at: int | None = None) -> None:
        self.model, self.query_dimensions, self.nan_at = model, query_dimensions, nan_at

    def encode_query(self, inputs: Any, *, batch_size: int, show_progress_bar: bool) -> Any:
        return self.model.encode_query(inputs, batch_size=batch_size)[:, : self.query_dimensions]

    def encode_document(self, inputs: Any, *, batch_size: int, show_progress_bar: bool) -> Any:
        rows = self.model.encode_document(inputs, batch_size=batch_size)
        if self.nan_at is not None:
            rows[self.nan_at :, 0] = np.nan
        return rows


def test_bad_embeddings(model: SentenceTransformer, task: RetrievalTask) -> None:
    with pytest.raises(InputError, match=r"embeddings of 3 of 120 document texts hold NaN .* the first is number 118"):
        evaluate(Broken(model, nan_at=117), task)
    with pytest.raises(InputError, match="queries have 16 dimensions and passages 32"):
        evaluate(Broken(model, query_dimensions=16), task)
    with pytest.raises(InputError, match="expected one of recall"):
        evaluate(model, task, ["hits@3"])


def test_cache_gives_the_same_scores_and_does_not_encode_again(
    model: SentenceTransformer, task: RetrievalTask, tmp_path: Path
) -> None:
    cache = EmbeddingCache.of(model, tmp_path)
    first = evaluate(model, task, cache=cache)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2  # queries, corpus; no drafts
    again = embed(model, [task.corpus[i] for i in sorted(task.corpus, reverse=True)], "document", cache=cache)
    assert isinstance(again, np.memmap)
    assert evaluate(model, task, cache=cache).means == first.means == evaluate(model, task).means
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_cache_tells_apart_all_that_changes_embeddings(model_path: Path, tmp_path: Path) -> None:
    changed = SentenceTransformer(str(model_path), device="cpu")
    cache = EmbeddingCache.of(changed, tmp_path)
    texts = list(TEXTS[:2])
    paths = {cache.path(changed, texts, "query"), cache.path(changed, texts, "document")}
    paths.add(cache.path(changed, texts[::-1], "query"))
    paths.add(cache.path(changed, ["".join(texts)], "query"))
    changed.prompts["query"] = "question : "
    paths.add(cache.path(changed, texts, "query"))
    changed.max_seq_length = 7
    paths.add(cache.path(changed, texts, "query"))
    changed.truncate_dim = 8
    paths.add(cache.path(changed, texts, "query"))
    changed.bfloat16()
    paths.add(cache.path(changed, texts, "query"))
    assert len(paths) == 8


def test_content_hash_is_of_the_content(model_path: Path, tmp_path: Path) -> None:
    one = SentenceTransformer(str(model_path), device="cpu")
    one.save(str(tmp_path / "copy"))
    before = content_hash(one)
    assert content_hash(SentenceTransformer(str(tmp_path / "copy"), device="cpu")) == before
    one.encode(list(TEXTS))
    assert content_hash(one) == before  # encoding changes the tokenizer's padding state, not the model
    with torch.no_grad():
        next(one.parameters()).view(-1)[0] += 1e-3
    assert content_hash(one) != before
    pooled = SentenceTransformer(str(model_path), device="cpu")
    setattr(pooled[1], "pooling_mode", "cls")  # noqa: B010 - mypy sees a Module, whose attributes it knows as tensors
    assert content_hash(pooled) != before


def test_cache_of_another_dimension_or_broken_is_named(model: SentenceTransformer, tmp_path: Path) -> None:
    cache = EmbeddingCache.of(model, tmp_path)
    path = cache.path(model, TEXTS, "query")
    np.save(path, np.zeros((len(TEXTS), 31), dtype=np.float32))
    with pytest.raises(InputError, match=r"cached embeddings are float32 \(8, 31\), expected float32 \(8, 32\)"):
        embed(model, TEXTS, "query", cache=cache)
    path.write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"not a file of embeddings .* delete it"):
        embed(model, TEXTS, "query", cache=cache)
    with pytest.raises(InputError, match="Broken with an embedding cache"):
        embed(Broken(model), TEXTS, "query", cache=cache)


def _encode_into(model_path: str, folder: Path) -> None:
    torch.set_num_threads(1)
    model = SentenceTransformer(model_path, device="cpu")
    cache = EmbeddingCache.of(model, folder)
    for count in range(1, 21):
        rows = embed(model, list(TEXTS) * count, "document", cache=cache)
        np.testing.assert_allclose(rows[:8], rows[-8:], atol=1e-5)  # a half-written file has rows of zeros


def test_concurrent_processes_share_the_cache(model_path: Path, tmp_path: Path) -> None:
    """Two processes that want the same 20 files: each sees whole ones, and no draft is left behind."""
    worker = multiprocessing.get_context("spawn").Process(target=_encode_into, args=(str(model_path), tmp_path))
    worker.start()
    while worker.is_alive() and not any(tmp_path.iterdir()):
        time.sleep(0.01)  # until the other process is ready: it imports torch first
    _encode_into(str(model_path), tmp_path)
    worker.join(120)
    assert worker.exitcode == 0
    assert len(list(tmp_path.iterdir())) == 20
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy"}
