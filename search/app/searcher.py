"""One model in memory: a question becomes the ranks of its passages. One question at a time is encoded."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evaluation.embedding_cache import EmbeddingCache
from evaluation.embeddings import embed
from evaluation.index import top_k

DEPTH = 100  # passages that are ranked, so that a passage's rank is known in the other lists; fewer are shown


@dataclass(frozen=True)
class Nearest:
    """What a model found.

    Attributes:
        positions: in the corpus, best first.
        scores: cosines.
        encode_ms, search_ms: of this question; waiting for others' questions counts in neither.
    """

    positions: tuple[int, ...]
    scores: tuple[float, ...]
    encode_ms: float
    search_ms: float


@dataclass
class Searcher:
    """A model and its embeddings of the corpus.

    Attributes:
        name: what the page calls it.
        model: whose tokenizer and device serve one thread at a time, so it has a lock of its own.
        corpus_CD: unit rows, float32, a memory map of the cache's file.
    """

    name: str
    model: Any
    corpus_CD: NDArray[np.float32]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, name: str, model: SentenceTransformer, texts: Sequence[str], cache: Path) -> Searcher:
        """Embed the corpus, or read the embeddings of an earlier time, and ask one question to have all in memory.

        Raises:
            InputError: embeddings that are not finite, a file in the cache that is not this corpus's.
        """
        corpus_CD = EmbeddingCache.of(model, cache).embed(model, texts, "document")
        searcher = cls(name, model, corpus_CD)
        searcher.search("?")
        return searcher

    def search(self, question: str) -> Nearest:
        """Rank the passages for a question. May be called from many threads."""
        return self.rank(*self.encode(question))

    def encode(self, question: str) -> tuple[NDArray[np.float32], float]:
        """(1, D) embedding of a question, and the milliseconds that it took."""
        with self._lock:
            start = time.perf_counter()
            query_1D = embed(self.model, [question], "query")
            return query_1D, (time.perf_counter() - start) * 1000

    def rank(self, query_1D: NDArray[np.float32], encode_ms: float) -> Nearest:
        """Rank the passages for an encoded question."""
        started = time.perf_counter()
        scores_1K, positions_1K = top_k(query_1D, self.corpus_CD, DEPTH)
        ended = time.perf_counter()
        return Nearest(
            tuple(positions_1K[0].tolist()),
            tuple(scores_1K[0].tolist()),
            encode_ms,
            (ended - started) * 1000,
        )
