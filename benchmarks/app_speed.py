"""`embtune try` over 100,000 passages: how long it takes to start the second time, and to answer.

    python -m benchmarks.app_speed [--passages 100000] [--out FILE]

The models are stand-ins of one layer and 384 dimensions, MiniLM's: what is measured (reading the corpus, hashing the
model, mapping the kept embeddings, the exact search, the page itself) depends on the sizes alone, so the embeddings
that the first start would have kept are random unit vectors. Questions are asked over HTTP, one after the other,
with clean-up, of both models; the encoding of the question is taken off. The search alone is timed for 1,024
dimensions too, on random unit vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from starlette.testclient import TestClient

from benchmarks.machine import processor
from evaluation.benchmark.models import load_model
from evaluation.embedding_cache import EmbeddingCache
from evaluation.embeddings import unit_rows
from evaluation.files import write_whole
from evaluation.index import top_k
from search.app.ask import Desk
from search.app.corpus import read_corpus
from search.app.open import open_desk, run_base
from search.app.server import make_app
from search.app.service import Service
from search.paths import RunFolder
from tests.kit.app import app_run
from tests.kit.toy import DEMO
from trainables.config import TrialConfig
from trainables.model.stand_ins import make_stand_in

QUESTIONS = 50


def words() -> list[str]:
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return sorted({word for row in rows for word in row["positive"].split()})


def write_corpus(path: Path, passages: int) -> None:
    drawn, known = random.Random(42), words()
    lines = [json.dumps({"text": f"{number} {' '.join(drawn.choices(known, k=6))}"}) for number in range(passages)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def keep_embeddings(run: Path, corpus: Path) -> None:
    """Write what the first start would keep, with random vectors in place of the models'."""
    folder, texts = RunFolder(run), read_corpus(corpus).texts
    drawn = np.random.default_rng(1)
    for model in (run_base(folder), load_model(str(folder.best))):
        path = EmbeddingCache.of(model, folder.embeddings).path(model, texts, "document")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, unit_rows(drawn.standard_normal((len(texts), 384), dtype=np.float32)))


def started(run: Path, corpus: Path) -> tuple[Desk, float]:
    """The desk, and the seconds that it took."""
    start = time.perf_counter()
    desk = open_desk(run, corpus, say=lambda _: None)
    return desk, time.perf_counter() - start


def answers(desk: Desk) -> dict[str, float]:
    """Medians and 95 % points in ms of the questions: without their encoding, and of the search of one model."""
    drawn, known = random.Random(7), words()
    rest, search = [], []
    with TestClient(make_app(Service(desk)), base_url="http://localhost") as browser:
        for _ in range(QUESTIONS):
            question = " ".join(drawn.choices(known, k=8))
            start = time.perf_counter()
            reply = browser.get("/api/search", params={"q": question}).json()
            whole = (time.perf_counter() - start) * 1000
            rest.append(whole - sum(column["encode_ms"] for column in reply["columns"]))
            search += [column["search_ms"] for column in reply["columns"]]
    return told("answer_both_models", rest) | told("search_one_model_384", search)


def search_1024(passages: int) -> dict[str, float]:
    drawn = np.random.default_rng(0)
    corpus_CD = unit_rows(drawn.standard_normal((passages, 1024), dtype=np.float32))
    times = []
    for _ in range(QUESTIONS):
        query_1D = unit_rows(drawn.standard_normal((1, 1024), dtype=np.float32))
        start = time.perf_counter()
        top_k(query_1D, corpus_CD, 100)
        times.append((time.perf_counter() - start) * 1000)
    return told("search_one_model_1024", times)


def told(name: str, times: list[float]) -> dict[str, float]:
    return {
        f"{name}_ms_median": round(statistics.median(times), 1),
        f"{name}_ms_p95": round(float(np.quantile(times, 0.95)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/app_speed.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_stand_in(
            TrialConfig(base="intfloat/multilingual-e5-small"), words(), folder / "base", width=384, layers=1
        )
        run, corpus = app_run(folder, base), folder / "corpus.jsonl"
        write_corpus(corpus, options.passages)
        keep_embeddings(run, corpus)
        desk, seconds = started(run, corpus)
        found: dict[str, Any] = {"second_start_s": round(seconds, 1)} | answers(desk)
    found |= search_1024(options.passages)
    document = {
        "command": f"python -m benchmarks.app_speed --passages {options.passages}",
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "load_before": round(load, 1),
        "passages": options.passages,
        "questions": QUESTIONS,
    } | found
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
