"""Peak memory of a merge, in multiples of the model's bytes: python benchmarks/merge_memory.py [LAYERS WIDTH WORDS]

A BERT of random weights is made (default: 6 layers of 512 and 60,000 words, 200 MB, most of it embeddings), then trials
of it with adapters and with every weight trained. Each measurement has a process of its own; what is counted is how far
its resident memory, mapped files included, rises above where it stood with everything imported and nothing loaded.
"mix and save" is the merge; "export" the whole path, with the trained models that the check embeds texts with; "by
hand" what `embtune merge` does with saved models. Writes benchmarks/results/merge_memory.json.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from machine import processor

from trainables.config import TrialConfig
from trainables.export.average import merge_models
from trainables.export.export import export_model, save_model
from trainables.export.mix import Mix, mixed_model
from trainables.model.build import build_model
from trainables.model.parity import TEXTS
from trainables.model.stand_ins import make_encoder
from trainables.training.checkpoint import save_weights

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
STEPS = ("mix and save", "export")
FIGURES = {"model_type": "bert", "max_position_embeddings": 512}


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


def prepare(folder: Path, layers: int, width: int, words: int) -> int:
    """Write a base and trials of it; the base's bytes in float32."""
    encoder = make_encoder(FIGURES, TEXTS, folder / "base", width=width, layers=layers)
    encoder.model.resize_token_embeddings(words, mean_resizing=False)
    encoder.model.save_pretrained(folder / "base")
    for seed, (kind, fields) in enumerate(TRIALS.items()):
        fixed = {"base": str(folder / "base"), "precision": "fp32"}
        config = TrialConfig.model_validate({**fixed, **fields})
        model = build_model(config, "cpu")
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.001 * torch.randn(parameter.shape, generator=generator))
        save_weights(model, folder / kind)
        (folder / kind / "config.json").write_text(config.model_dump_json())
    return sum(parameter.numel() * 4 for parameter in encoder.model.parameters())


def by_hand(folder: Path, count: int) -> int:
    """The peak of averaging saved models, which are made before by another process."""
    saved = [folder / f"saved-{number}" for number in range(count)]

    def work() -> None:
        merge_models(saved, None, folder / "mean", "")

    return peak_of(work)


def save(folder: Path, name: str, number: int) -> int:
    """Save the trial of a mix as a model."""
    config = TrialConfig.model_validate_json((folder / name / "config.json").read_text())
    save_model(mixed_model(Mix.of(config, folder / name), "cpu"), folder / f"saved-{number}")
    return 0


def measure(folder: Path, name: str, step: str) -> int:
    """The peak of one step with one mix."""
    trials = []
    for kind in MIXES[name]:
        config = TrialConfig.model_validate_json((folder / kind / "config.json").read_text())
        trials.append((config, folder / kind))
    mix = Mix.uniform(trials)

    def work() -> None:
        if step == "export":
            export_model(mix, folder / "out", TEXTS[:2], TEXTS[2:], {}, "", force=True)
        else:
            save_model(mixed_model(mix, "cpu"), folder / "saved")

    return peak_of(work)


def apart(work: Callable[..., int], *arguments: Any) -> int:
    """What the work returns, done in a process of its own, forked from this one that has loaded nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *arguments).result()


def main(layers: int, width: int, words: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = apart(prepare, folder, layers, width, words)
        rows = []
        for name in MIXES:
            row: dict[str, Any] = {"mix": name}
            for step in STEPS:
                row[step] = round(apart(measure, folder, name, step) / size, 2)
            rows.append(row)
            print(row, flush=True)
        for number, kind in enumerate(("qv", "full", "full2")):
            apart(save, folder, kind, number)
        rows.append({"mix": "three saved models", "by hand": round(apart(by_hand, folder, 3) / size, 2)})
        print(rows[-1], flush=True)
    document = {
        "what": "peak resident memory above that of an idle process with everything imported, in model sizes",
        "limit": 2.2,
        "model": {"bytes": size, "layers": layers, "width": width, "words": words},
        "rows": rows,
        "machine": processor(),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:4]) if len(sys.argv) > 1 else (6, 512, 60_000)))
