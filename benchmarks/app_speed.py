"""`embtune try` over 100,000 passages: how long it takes to start the second time, and to answer.

    python benchmarks/app_speed.py [--passages 100000] [--out FILE]

The models are stand-ins of one layer, of 384 dimensions (MiniLM's) and of 1,024: what is measured (reading the corpus,
hashing the model, mapping the kept embeddings, the exact search, the page itself) depends on the sizes alone, so the
embeddings that the first start would have kept are random unit vectors. Questions are asked over HTTP, one after the
other, with clean-up, of both models; the encoding of the question is taken off. The search alone is timed for both
sizes too, on random unit vectors. Encoding and each search have one thread; the models are searched at once. Beside
the time on the clock stands that of the processor, which others on the machine do not lengthen by making one wait.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from machine import processor
from starlette.testclient import TestClient

from evaluation.benchmark.models import load_model
from evaluation.embedding_cache import EmbeddingCache
from evaluation.embeddings import embed, unit_rows
from evaluation.files import write_whole
from evaluation.index import top_k
from search.app.ask import Desk
from search.app.corpus import read_corpus
from search.app.open import open_desk, run_base
from search.app.searcher import DEPTH
from search.app.server import make_app
from search.app.service import Service
from search.paths import RunFolder
from trainables.config import TrialConfig
from trainables.model.stand_ins import make_stand_in

sys.path.insert(0, str(Path(__file__).parents[1]))  # an installation has no tests, whose toy run is asked

from tests.kit.app import app_run
from tests.kit.toy import DEMO

QUESTIONS = 50
DIMENSIONS = (384, 1024)


def words() -> list[str]:
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return sorted({word for row in rows for word in row["positive"].split()})


def write_corpus(path: Path, passages: int) -> None:
    drawn, known = random.Random(42), words()
    lines = [json.dumps({"text": f"{number} {' '.join(drawn.choices(known, k=6))}"}) for number in range(passages)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def keep_embeddings(run: Path, corpus: Path, dimensions: int) -> None:
    """Write what the first start would keep, with random vectors in place of the models'."""
    folder, texts = RunFolder(run), read_corpus(corpus).texts
    drawn = np.random.default_rng(1)
    for model in (run_base(folder), load_model(str(folder.best))):
        path = EmbeddingCache.of(model, folder.embeddings).path(model, texts, "document")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, unit_rows(drawn.standard_normal((len(texts), dimensions), dtype=np.float32)))


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


def answers(desk: Desk, dimensions: int) -> dict[str, float]:
    """Times of the questions to both models, without their encoding."""
    drawn, known = random.Random(7), words()
    times = []
    with TestClient(make_app(Service(desk)), base_url="http://localhost") as browser:
        for _ in range(QUESTIONS):
            question = " ".join(drawn.choices(known, k=8))
            start = clocks()
            reply = browser.get("/api/search", params={"q": question}).json()
            wall, processor_s = since(start)
            wall -= sum(column["encode_ms"] for column in reply["columns"]) / 1000
            start = clocks()
            for searcher in desk.searchers:
                embed(searcher.model, [reply["cleaned"]["searched"]], "query")
            times.append((wall, processor_s - since(start)[1]))
    return told(f"answer_both_models_{dimensions}", times)


def page(folder: Path, passages: int, dimensions: int) -> dict[str, float]:
    """Times of a second start, and of answers, with two models of so many dimensions."""
    base = make_stand_in(
        TrialConfig(base="intfloat/multilingual-e5-small"), words(), folder / "base", width=dimensions, layers=1
    )
    run, corpus = app_run(folder, base), folder / "corpus.jsonl"
    write_corpus(corpus, passages)
    keep_embeddings(run, corpus, dimensions)
    start = clocks()
    desk = open_desk(run, corpus, say=lambda _: None)
    wall, own = since(start)
    started = {f"second_start_{dimensions}_s": round(wall, 1), f"second_start_{dimensions}_processor_s": round(own, 1)}
    return started | answers(desk, dimensions)


def search(passages: int, dimensions: int) -> dict[str, float]:
    """Times of one search among random vectors."""
    drawn = np.random.default_rng(0)
    corpus_CD = unit_rows(drawn.standard_normal((passages, dimensions), dtype=np.float32))
    times = []
    for _ in range(QUESTIONS):
        query_1D = unit_rows(drawn.standard_normal((1, dimensions), dtype=np.float32))
        start = clocks()
        top_k(query_1D, corpus_CD, DEPTH)
        times.append(since(start))
    return told(f"search_{dimensions}", times)


def told(name: str, times: list[tuple[float, float]]) -> dict[str, float]:
    clock, own = ([1000 * value for value in column] for column in zip(*times, strict=True))
    return {
        f"{name}_ms_median": round(statistics.median(clock), 1),
        f"{name}_ms_p95": round(float(np.quantile(clock, 0.95)), 1),
        f"{name}_processor_ms_median": round(statistics.median(own), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/app_speed.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    found: dict[str, Any] = {}
    for dimensions in DIMENSIONS:
        with tempfile.TemporaryDirectory() as name:
            found |= page(Path(name), options.passages, dimensions)
    for dimensions in DIMENSIONS:
        found |= search(options.passages, dimensions)
    document = {
        "command": f"python benchmarks/app_speed.py --passages {options.passages}",
        "machine": processor(),
        "threads": 1,
        "load_before": round(load, 1),
        "passages": options.passages,
        "questions": QUESTIONS,
    } | found
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
