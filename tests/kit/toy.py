"""A small real data set for tests: the first concepts of the demo, and a spec over a tiny base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search.spec.load import load_spec
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.prepare import prepare

DEMO = Path(__file__).parents[2] / "search" / "presets" / "demo.jsonl"


def write_pairs(path: Path, concepts: int = 60) -> Path:
    """Write the rows of the demo's first concepts."""
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    kept = set(list(dict.fromkeys(row["cluster_id"] for row in rows))[:concepts])
    lines = [json.dumps(row, ensure_ascii=False) for row in rows if row["cluster_id"] in kept]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_guard(folder: Path) -> Path:
    """A guard of a dozen questions."""
    rows = (
        {"anchor": f"Où est la gare {n} ?", "positive": f"Près du pont {n * 7}.", "concept": str(n)} for n in range(12)
    )
    path = folder / "guard.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trial_data(folder: Path, concepts: int = 60) -> TrialData:
    """Prepared data in `folder`/data."""
    source = write_pairs(folder / "pairs.jsonl", concepts)
    prepare(DataConfig(source=source.name), folder, 42, folder / "data")
    return TrialData.load(folder / "data")


def write_spec(folder: Path, base: Path, concepts: int = 60, **changes: Any) -> Path:
    """A spec of a few short trials on a tiny base, and a guard of a few questions: the general one has 405."""
    write_pairs(folder / "pairs.jsonl", concepts)
    spec: dict[str, Any] = {
        "name": "toy",
        "data": {"source": "pairs.jsonl"},
        "space": {
            "base": str(base),
            "max_length": 24,
            "targets": ["qv", "all-linear"],
            "r": [2, 4],
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": 16,
            "precision": "fp32",
            "rungs": 3,
        },
        "sampler": {"startup": 2},
        "budget": {"trials": 5},
        "resources": {"concurrent": 1},
        "guard": {"source": write_guard(folder).name},
    }
    return write_changed(folder / "toy.yaml", spec, changes)


def write_changed(path: Path, spec: dict[str, Any], changes: Mapping[str, Any]) -> Path:
    """Write a spec with changes: sections are changed key by key, all else is replaced."""
    for key, value in changes.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) and key in spec else value
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def new_run(folder: Path, spec: Path) -> Path:
    """Prepare the data of a spec in the run's folder, which is returned."""
    loaded = load_spec(spec)
    prepare(loaded.data, loaded.folder, loaded.seed, folder / "data")
    return folder
