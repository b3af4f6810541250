"""evaluate(encoder, task) -> Scores: encode, search exactly, score each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.classification.outcome import Outcome
from evaluation.embeddings import Encoder, unit_rows
from evaluation.errors import InputError
from evaluation.files import aside
from evaluation.index import top_k
from evaluation.metrics import DEFAULT_METRICS, Judgements, depth, score
from evaluation.task import RetrievalTask

if TYPE_CHECKING:
    from evaluation.embedding_cache import EmbeddingCache


def _no_passages() -> NDArray[np.str_]:
    return np.empty((0, 0), dtype=np.str_)


@dataclass(frozen=True)
class Scores:
    """What one model did on one task, query by query.

    Attributes:
        query_ids: Q ids, in the task's order.
        groups: the concept of each query, the unit of resampling.
        per_query: metric name -> (Q,) float64.
        top_ids_QK: ids of the passages found, best first.
        outcome: of a classification, where a query is an example: what was said of each; None: of a retrieval.
    """

    query_ids: tuple[str, ...]
    groups: tuple[str, ...]
    per_query: dict[str, NDArray[np.float64]]
    top_ids_QK: NDArray[np.str_] = field(default_factory=_no_passages)
    outcome: Outcome | None = None

    @property
    def means(self) -> dict[str, float]:
        """Metric name -> mean over the queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}

    def standard_error(self, metric: str) -> float:
        """Standard error of the metric's mean when whole groups are the unit of sampling (cluster-robust).

        sqrt(G / (G - 1) x sum over groups of (sum of deviations in the group)^2) / Q; NaN with fewer than two groups.

        Raises:
            InputError: the metric was not computed.
        """
        values = self.values(metric)
        _, group_Q = np.unique(np.asarray(self.groups), return_inverse=True)
        sums_G = np.bincount(group_Q, weights=values - values.mean())
        count = len(sums_G)
        if count < 2:
            return float("nan")
        return float(np.sqrt(count / (count - 1) * (sums_G**2).sum()) / len(values))

    def values(self, metric: str) -> NDArray[np.float64]:
        """The metric of each query.

        Raises:
            InputError: the metric was not computed.
        """
        if metric not in self.per_query:
            raise InputError(f"metric {metric!r} was not computed, expected one of {', '.join(self.per_query)}")
        return self.per_query[metric]

    def save(self, path: str | Path) -> None:
        """Write an .npz file; arrays only, no pickle."""
        arrays = {f"metric:{name}": values for name, values in self.per_query.items()}
        if self.outcome is not None:
            arrays |= self.outcome.arrays()
        with aside(Path(path)) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                query_ids=np.array(self.query_ids, dtype=np.str_),
                groups=np.array(self.groups, dtype=np.str_),
                top_ids_QK=self.top_ids_QK,
                allow_pickle=False,
                **arrays,
            )

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote.

        Raises:
            InputError: no such file.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file, expected scores as .npz")
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                query_ids=tuple(arrays["query_ids"].tolist()),
                groups=tuple(arrays["groups"].tolist()),
                per_query={n.removeprefix("metric:"): arrays[n] for n in arrays.files if n.startswith("metric:")},
                top_ids_QK=arrays["top_ids_QK"],
                outcome=Outcome.of(arrays),
            )


@dataclass(frozen=True)
class TaskEmbeddings:
    """A task's texts as one model sees them: unit rows, so inner products are cosines.

    Attributes:
        task: whose texts they are.
        query_ids: Q ids in the order of queries_QD.
        corpus_ids: C ids in the order of corpus_CD: descending, since top_k gives ties to the first and trec_eval to
            the greater id.
        queries_QD, corpus_CD: float32.
    """

    task: RetrievalTask
    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    queries_QD: NDArray[np.float32]
    corpus_CD: NDArray[np.float32]

    def judgements(self) -> Judgements:
        """The task's qrels in the order of these rows."""
        return Judgements.of(self.task.qrels, self.query_ids, self.corpus_ids)

    def truncated(self, dimensions: int) -> TaskEmbeddings:
        """The first dimensions of each row, brought to length 1 again.

        Raises:
            InputError: more dimensions than there are, or fewer than one.
        """
        if not 1 <= dimensions <= self.queries_QD.shape[1]:
            raise InputError(f"truncated to {dimensions} dimensions, expected 1 to {self.queries_QD.shape[1]}")
        queries = unit_rows(self.queries_QD[:, :dimensions])
        return TaskEmbeddings(
            self.task, self.query_ids, self.corpus_ids, queries, unit_rows(self.corpus_CD[:, :dimensions])
        )


def embed_task(
    encoder: Encoder,
    task: RetrievalTask,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> TaskEmbeddings:
    """Encode the task's queries and corpus once, for the protocols that share them.

    Raises:
        InputError: embeddings with NaN or infinity.
    """
    from evaluation.embedding_cache import embed_cached  # imports torch, which scores alone do without

    query_ids = tuple(task.queries)
    corpus_ids = tuple(sorted(task.corpus, reverse=True))
    queries_QD = embed_cached(encoder, [task.queries[i] for i in query_ids], "query", batch_size, progress, cache)
    corpus_CD = embed_cached(encoder, [task.corpus[i] for i in corpus_ids], "document", batch_size, progress, cache)
    return TaskEmbeddings(task, query_ids, corpus_ids, queries_QD, corpus_CD)


def score_embeddings(embeddings: TaskEmbeddings, metrics: Sequence[str] = DEFAULT_METRICS) -> Scores:
    """Rank the corpus for each query by cosine and score the rankings.

    Raises:
        InputError: an unknown metric, queries and passages of different dimensions.
    """
    _, ranking_QK = top_k(embeddings.queries_QD, embeddings.corpus_CD, depth(metrics))
    return Scores(
        query_ids=embeddings.query_ids,
        groups=tuple(embeddings.task.groups[i] for i in embeddings.query_ids),
        per_query=score(ranking_QK, embeddings.judgements(), metrics),
        top_ids_QK=np.array(embeddings.corpus_ids, dtype=np.str_)[ranking_QK],
    )


def evaluate(
    encoder: Encoder,
    task: RetrievalTask,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> Scores:
    """Encode the task's texts, rank its corpus for each query by cosine, and score the rankings.

    Passages of equal cosine stand in descending order of their ids, as trec_eval ranks them.

    Args:
        encoder: a SentenceTransformer, with its prompts set.
        task: Q queries over C passages.
        metrics: names such as ndcg@10.
        batch_size: texts encoded at once.
        cache: embeddings kept on disk; None: nothing is kept.
        progress: show a bar for each encoding.

    Returns:
        Scores of all Q queries, in the task's order.

    Raises:
        InputError: an unknown metric, embeddings with NaN, queries and passages of different dimensions.
    """
    depth(metrics)  # an unknown metric is refused before the encoding, which is what takes the time
    return score_embeddings(embed_task(encoder, task, batch_size, cache, progress), metrics)
