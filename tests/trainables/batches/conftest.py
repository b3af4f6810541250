"""Prepared pairs that the tests with a real trainer share."""

from __future__ import annotations

import json

import pytest

from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.prepare import prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """90 concepts of two rows."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "kind": "context",
            "positive": f"passage {at} of concept {c}",
            "cluster_id": c,
            "anchor": f"question {at} on {c}",
        }
        for c in range(90)
        for at in range(2)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(DataConfig(source="pairs.jsonl"), folder, 42, folder / "data")
    return TrialData.load(folder / "data")
