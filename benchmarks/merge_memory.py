"""Peak memory of a merge, in multiples of the model's bytes: python benchmarks/merge_memory.py [LAYERS WIDTH WORDS]

A BERT of random weights is made (default: 12 layers of 768 and 60,000 words, 131 million parameters), then trials of it
with adapters and with every weight trained. Each mix runs in a process of its own; what is counted is how far its
resident memory, mapped files included, rises above where it stood with everything imported and nothing loaded. Writes
benchmarks/results/merge_memory.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.machine import machine
from tests.conftest import TEXTS
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.export.export import export_model, save_model
from trainables.export.mix import Mix, mixed_model
from trainables.model.build import forget_bases
from trainables.model.stand_ins import make_encoder

RESULT = Path(__file__).parent / "results" / "merge_memory.json"
MIXES = {
    "one adapter": ("qv",),
    "soup of two adapters and a DoRA": ("qv", "all-linear", "dora"),
    "one full fine-tuning": ("full",),
    "soup of three full fine-tunings": ("full", "full2", "full3"),
    "soup of an adapter, a DoRA and a full fine-tuning": ("qv", "dora", "full"),
}
TRIALS: dict[str, dict[str, Any]] = {
    "qv": {"targets": "qv"},
    "all-linear": {"targets": "all-linear", "r": 16},
    "dora": {"targets": "attention", "dora": True},
    "full": {"method": "full"},
    "full2": {"method": "full"},
    "full3": {"method": "full"},
}
STEPS = ("mix", "mix and save", "export")


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes of resident memory that the work adds, at its highest, read every millisecond."""
    process, ended, highest = psutil.Process(), threading.Event(), 0

    def watch() -> None:
        nonlocal highest
        while not ended.is_set():
            highest = max(highest, process.memory_info().rss)
            time.sleep(0.001)

    before = process.memory_info().rss
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        ended.set()
        thread.join()
    return highest - before


def measure(folder: Path, name: str, step: str) -> None:
    """In a process of its own: print the peak."""
    torch.set_num_threads(1)
    trials = []
    for kind in MIXES[name]:
        config = TrialConfig.model_validate_json((folder / kind / "config.json").read_text())
        trials.append((config, folder / kind))
    mix = Mix.uniform(trials)

    def work() -> None:
        if step == "export":
            export_model(mix, folder / "out", list(TEXTS[:2]), list(TEXTS[2:]), {}, "", force=True)
            return
        model = mixed_model(mix, "cpu")
        if step == "mix and save":
            save_model(model, folder / "saved")

    print(peak_of(work))


def main(layers: int, width: int, words: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        figures = {"model_type": "bert", "num_hidden_layers": layers, "max_position_embeddings": 512}
        encoder = make_encoder(figures, TEXTS, folder / "base", width=width, layers=layers)
        encoder.model.resize_token_embeddings(words)
        encoder.model.save_pretrained(folder / "base")
        size = sum(parameter.numel() * 4 for parameter in encoder.model.parameters())
        del encoder
        for seed, (kind, fields) in enumerate(TRIALS.items()):
            config = trained(folder / kind, folder / "base", seed, scale=0.001, **fields)
            (folder / kind / "config.json").write_text(config.model_dump_json())
            forget_bases()
        rows = []
        for name in MIXES:
            row: dict[str, Any] = {"mix": name}
            for step in STEPS:
                call = [sys.executable, "-m", "benchmarks.merge_memory", "measure", str(folder), name, step]
                done = subprocess.run(call, check=True, capture_output=True, text=True)
                row[step] = round(int(done.stdout.split()[-1]) / size, 2)
            rows.append(row)
            print(row, flush=True)
    document = {
        "what": "peak resident memory above that of an idle process with everything imported, in model sizes",
        "limit": 2.2,
        "model": {"bytes": size, "layers": layers, "width": width, "words": words},
        "rows": rows,
        "machine": machine(),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]), *sys.argv[3:5])
    else:
        os.environ["OMP_NUM_THREADS"] = "1"
        main(*(map(int, sys.argv[1:4]) if len(sys.argv) > 1 else (12, 768, 60_000)))
