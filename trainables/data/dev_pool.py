"""The pool that dev evaluations search where the corpus is large: one for all trials of a search, whatever their base.

It holds the passages that are relevant to a dev question and, of each base that is searched, the first few of each
dev question. It is the union over the bases, made before the first trial: trials of different bases are ranked among
the same passages, so their dev scores compare, and no base meets only its own mistakes. A pool can only flatter: what
a trained model would wrongly rank first and no base does is not in it.

Pooling is TREC's way to judge a corpus that nobody can read (Spärck Jones and van Rijsbergen 1975): what the systems
find first is looked at, the rest counts as found by none. Here the systems are the untrained bases.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from evaluation.embedding_cache import EmbeddingCache
from evaluation.files import write_whole
from evaluation.index import top_k
from evaluation.retrieval import TaskEmbeddings, embed_task
from evaluation.task import RetrievalTask
from trainables.config import TrialConfig
from trainables.data.prepared import DEV_POOL, load_report, load_task
from trainables.model.build import build_model


def make_dev_pool(out: Path, configs: Iterable[TrialConfig], cache: Path, device: str | None = None) -> None:
    """Write dev_pool.json into the run's data folder, which says that its dev evaluations search one.

    Args:
        out: the run's data folder.
        configs: trials of the search; each base is asked once, with the prompts and length of its first trial.
        cache: folder of embeddings. The corpus is embedded in pieces and mapped from there, never held as a whole;
            the benchmark at the end reads the same file again.
        device: None: the first GPU, else the CPU.

    Raises:
        InputError: a base cannot be built, or its embeddings are not finite.
    """
    depth = load_report(out).pool_depth
    assert depth is not None, "the corpus is small enough to be searched whole"
    task = load_task(out, "dev")
    bases = {(config.base, config.revision): config for config in reversed(list(configs))}
    found: set[str] = set()
    for config in bases.values():
        model = build_model(config.model_copy(update={"method": "none"}), device, dtype=torch.float32).eval()
        found |= first_passages(embed_task(model, task, cache=EmbeddingCache.of(model, cache)), depth)
    ids = list(pooled(task, found).corpus)
    document = {"bases": sorted({base for base, _ in bases}), "of": len(task.corpus), "passages": ids}
    write_whole(out / DEV_POOL, json.dumps(document))


def first_passages(embeddings: TaskEmbeddings, depth: int) -> set[str]:
    """Ids of the `depth` passages that the model ranks first for each query."""
    _, places_QN = top_k(embeddings.queries_QD, embeddings.corpus_CD, depth)
    return {embeddings.corpus_ids[place] for place in set(places_QN.ravel().tolist())}


def pooled(task: RetrievalTask, found: Collection[str]) -> RetrievalTask:
    """The task over the passages that were found and all that are relevant, in the order of its corpus."""
    kept = {*found, *(passage for grades in task.qrels.values() for passage in grades)}
    return replace(task, corpus={i: text for i, text in task.corpus.items() if i in kept})
