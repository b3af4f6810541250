"""How long a classifier's dev evaluation takes, and what one trial on natural language inference comes to.

    python benchmarks/classification.py TRAIN.tsv DEV.tsv [--rows N] [--epochs E] [--out FILE]

TRAIN and DEV are tab-separated with premise, hypo and label. Two things are measured on all-MiniLM-L6-v2, an English
base, in the precision that the machine computes fastest:
- the evaluation of 2,500 pairs of TRAIN, tokenizing included, by the trial's own code, the median of three;
- one trial of LoRA on TRAIN (or its first N rows) against DEV as it is, its scores rung by rung.
Seconds are wall-clock and processor time of this process; where the two differ by more than the cores, the machine had
other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import processor

from evaluation.files import write_whole
from trainables.bases.hub import DEMO_BASE
from trainables.classification.config import LabelledDataConfig
from trainables.classification.predict import logits_of
from trainables.classification.prepared import LabelledData, prepare_labelled
from trainables.config import ClassifierConfig
from trainables.model.classifier import build_classifier
from trainables.model.precision import autocast, resolve_precision
from trainables.train import train
from trainables.training.rungs import Rung

PAIRS = 2500
RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--rows", type=int, help="of the training file; without it all")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "classification.json")
    told = parser.parse_args()
    torch.set_num_threads(2)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = prepared(told.train.resolve(), told.dev.resolve(), told.rows, folder)
        config = ClassifierConfig(
            base=DEMO_BASE,
            labels=data.labels,
            max_length=128,
            targets="all-linear",
            r=16,
            lr=1e-3,
            epochs=told.epochs,
            batch_size=32,
            rungs=4,
        )
        document = {
            "machine": processor(),
            "load_before": round(load, 2),
            "command": f"python benchmarks/classification.py {told.train.name} {told.dev.name} --epochs {told.epochs:g}"
            + (f" --rows {told.rows}" if told.rows else ""),
            "precision": resolve_precision(config).name,
            "evaluation": evaluation(config, data),
            "trial": trial(config, data, folder),
        }
    write_whole(told.out, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(document, indent=1, ensure_ascii=False))


def prepared(train: Path, dev: Path, rows: int | None, folder: Path) -> LabelledData:
    config = LabelledDataConfig.model_validate(
        {
            "source": {"train": str(train), "dev": str(dev)},
            "columns": {"text": "premise", "text_pair": "hypo", "group": "premise"},
            "max_rows": rows,
        }
    )
    prepare_labelled(config, folder, 42, folder / "data")
    return LabelledData.load(folder / "data")


def evaluation(config: ClassifierConfig, data: LabelledData) -> dict[str, Any]:
    """Seconds of PAIRS predictions."""
    pairs = (data.texts * (PAIRS // len(data.texts) + 1))[:PAIRS]
    model = build_classifier(config, "cpu")
    seconds, spent = [], []
    with autocast(resolve_precision(config), model.device):
        for _ in range(RUNS):
            start, used = time.perf_counter(), time.process_time()
            logits_of(model, pairs)
            seconds.append(time.perf_counter() - start)
            spent.append(time.process_time() - used)
    return {
        "pairs": PAIRS,
        "seconds": round(statistics.median(seconds), 2),
        "processor_seconds": round(statistics.median(spent), 2),
    }


def trial(config: ClassifierConfig, data: LabelledData, folder: Path) -> dict[str, Any]:
    rungs: list[Rung] = []
    start, used = time.perf_counter(), time.process_time()
    best = train(config, data, rungs.append, folder=folder / "trial")
    return {
        "rows": len(data.texts),
        "dev_rows": len(data.dev.ids),
        "macro_f1": [round(rung.metrics["macro_f1"], 4) for rung in rungs],
        "best": {name: round(value, 4) for name, value in best.metrics.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - used, 1),
    }


if __name__ == "__main__":
    main()
