"""A benchmark of every base that is in reach."""

from __future__ import annotations

import json
import os
from pathlib import Path

from evaluation.task import RetrievalTask
from tests.conftest import TEXTS
from tests.kit.command import embtune
from trainables.bases.hub import DEMO_BASE
from trainables.bases.known import FAMILIES

OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


def test_every_base_in_reach_is_benchmarked_and_the_others_are_named(tmp_path: Path) -> None:
    RetrievalTask.from_pairs("t", [text[:9] for text in TEXTS], list(TEXTS), list(range(len(TEXTS)))).save_beir(
        tmp_path / "task"
    )
    home = {**OFFLINE, "HF_HOME": str(tmp_path / "hub")}  # an empty cache: the demo's base comes with a package
    done = embtune("benchmark", "--all-bases", "--task", "task", "--json", cwd=tmp_path, environment=home)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    (row,) = table["rows"]
    assert (row["model"], row["parameters"]) == (DEMO_BASE, 22_713_216)
    assert row["texts_per_second"] > 0
    left_out = [note for note in table["notes"] if note.startswith("left out")]
    assert len(left_out) == len(FAMILIES) - 1
    assert all("not in the local cache and the hub does not answer" in note for note in left_out)
