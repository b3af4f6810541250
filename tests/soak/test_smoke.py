"""A smoke search from Python: the whole path on stand-ins, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from sentence_transformers import SentenceTransformer

from search import run_search
from tests.conftest import TinyBase
from tests.kit.toy import write_spec


def test_a_smoke_search_from_python_opens_its_own_folder(
    tiny_base: TinyBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = yaml.safe_load(write_spec(tmp_path, tiny_base("bert")).read_text())
    monkeypatch.chdir(tmp_path)
    run = run_search(spec, smoke=True)
    assert run.folder.path == tmp_path / "runs" / "toy-smoke"
    assert len(run.leaderboard()) == 6
    model = run.model()
    assert isinstance(model, SentenceTransformer)
    assert model.encode_query("DGFiP").shape
    assert not (tmp_path / "runs" / "toy").exists()
