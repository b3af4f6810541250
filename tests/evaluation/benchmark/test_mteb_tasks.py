"""MTEB's tasks: a local task object is scored by mteb itself and by this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from evaluation.benchmark.mteb_tasks import from_mteb, load_mteb
from evaluation.errors import InputError
from evaluation.retrieval import evaluate
from tests.conftest import TEXTS, TinyBase

mteb = pytest.importorskip("mteb", reason="the extra embtune[mteb] is not installed")


@pytest.fixture(scope="module")
def model(tiny_base: TinyBase) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_base("xlm-roberta")), device="cpu", prompts={"query": "", "document": ""})


def local_task(**attributes: Any) -> Any:
    """A retrieval task of MTEB whose data is made here; its metadata is that of SyntecRetrieval."""
    from datasets import Dataset

    rng = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    passages = [" ".join(rng.choice(words, 12)) for _ in range(80)]
    task = mteb.get_task("SyntecRetrieval")
    split = task.eval_splits[0]
    task.dataset = {
        "default": {
            split: {
                "corpus": Dataset.from_list([{"id": f"p{i}", "title": "", "text": t} for i, t in enumerate(passages)]),
                "queries": Dataset.from_list(
                    [{"id": f"q{i}", "text": " ".join(passages[i].split()[:4])} for i in range(20)]
                ),
                "relevant_docs": {f"q{i}": {f"p{i}": 1, f"p{i + 20}": 2} for i in range(20)},
                "top_ranked": None,
            }
        }
    }
    task.data_loaded = True
    for name, value in attributes.items():
        setattr(task, name, value)
    return task


def test_same_scores_as_mteb(model: SentenceTransformer, tmp_path: Path) -> None:
    (ours,) = from_mteb(local_task())
    assert ours.name == "SyntecRetrieval/test"
    found = evaluate(model, ours, ["ndcg@10", "recall@5", "map@10", "mrr@10"]).means
    result = mteb.evaluate(model, local_task(), cache=None, show_progress_bar=False, co2_tracker=False)
    (theirs,) = result.task_results[0].scores["test"]
    for name, value in found.items():
        measure, k = name.split("@")
        assert value == pytest.approx(theirs[f"{measure}_at_{k}"], abs=1e-5)  # mteb rounds to 5 places


def test_tasks_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="not known to mteb"):
        load_mteb("NoSuchRetrieval")
    with pytest.raises(InputError, match="expected a retrieval task"):
        from_mteb(mteb.get_task("Banking77Classification"))
    with pytest.raises(InputError, match="expected a plain ranking"):
        from_mteb(local_task(ignore_identical_ids=True))
    task = local_task()
    task.dataset["default"]["test"]["top_ranked"] = {"q0": ["p0"]}
    with pytest.raises(InputError, match="reranks given passages"):
        from_mteb(task)
