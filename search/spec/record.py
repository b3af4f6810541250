"""`spec.json`: the resolved spec and everything that is needed to repeat the run."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.files import write_whole
from search.paths import RunFolder
from search.spec.sections import SearchSpec

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
        "start_from": None if spec.started_from is None else spec.started_from.model_dump(),
    }
    write_whole(RunFolder(run).spec, json.dumps(document, indent=1, ensure_ascii=False))


def read_record(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RunFolder(run).spec.read_text(encoding="utf-8"))
    return document


def classifies(run: Path) -> bool:
    """Whether a run's search is a classification."""
    return bool(read_record(run).get("task") == "classification")


def git_commit() -> str | None:
    """The commit of the embtune that runs, where it runs from a git checkout."""
    here = Path(__file__).resolve()
    git = shutil.which("git")
    if git is None:
        return None
    # An environment may lie in a repository of its user's, which holds no file of embtune.
    held = subprocess.run([git, "-C", str(here.parent), "ls-files", "--error-unmatch", here.name], capture_output=True)
    if held.returncode:
        return None
    done = subprocess.run([git, "-C", str(here.parent), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or None
