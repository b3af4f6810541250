"""A pool of a large corpus: the passages that an evaluation searches where searching all of them costs too much.

Pooling is TREC's way to judge a corpus that nobody can read (Spärck Jones and van Rijsbergen 1975): what the systems
find first is looked at, the rest counts as found by none. Here the systems are the untrained bases.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from evaluation.index import top_k
from evaluation.retrieval import TaskEmbeddings
from evaluation.task import RetrievalTask


def first_passages(embeddings: TaskEmbeddings, depth: int) -> set[str]:
    """Ids of the `depth` passages that the model ranks first for each query."""
    _, places_QN = top_k(embeddings.queries_QD, embeddings.corpus_CD, depth)
    return {embeddings.corpus_ids[place] for place in set(places_QN.ravel().tolist())}


def pooled(task: RetrievalTask, found: Collection[str]) -> RetrievalTask:
    """The task over the passages that were found and all that are relevant, in the order of its corpus."""
    kept = {*found, *(passage for grades in task.qrels.values() for passage in grades)}
    return replace(task, corpus={i: text for i, text in task.corpus.items() if i in kept})
