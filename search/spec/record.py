"""`spec.json`: the resolved spec and everything that is needed to repeat the run."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.files import write_whole
from search.spec.load import SearchSpec

SPEC = "spec.json"
PACKAGES = (
    "embtune",
    "ray",
    "optuna",
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "datasets",
    "faiss-cpu",
)


def write_spec(spec: SearchSpec, run: Path, data_hash: str, base_commits: Mapping[str, str | None]) -> None:
    """Write `spec.json` whole: every default, versions, git commit, seed, hash of the data, hub commit of each base."""
    document: dict[str, Any] = spec.model_dump(mode="json")
    document["folder"] = str(spec.folder)
    document["record"] = {
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "data_hash": data_hash,
        "base_commits": dict(base_commits),  # null for a local folder
    }
    write_whole(run / SPEC, json.dumps(document, indent=1, ensure_ascii=False))


def read_record(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / SPEC).read_text(encoding="utf-8"))
    return document


def git_commit() -> str | None:
    """The commit of the embtune that runs, where it runs from a git checkout."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
