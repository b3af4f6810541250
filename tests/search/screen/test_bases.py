"""`embtune bases`: the table of what is known, and of one base everything and from where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from trainables.bases.known import FAMILIES
from trainables.plan.facts import known_bases


def test_the_table_names_every_known_base_with_what_a_trial_needs(tmp_path: Path) -> None:
    done = embtune_here("bases", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert list(rows) == [family.base for family in FAMILIES]
    assert all(row["parameters"] and row["memory"] and row["dimensions"] and row["licence"] for row in rows.values())
    gemma = rows["google/embeddinggemma-300m"]
    assert (gemma["architecture"], gemma["pooling"], gemma["dense"], gemma["gated"]) == (
        "gemma3_text",
        "mean",
        [3072, 768],
        True,
    )
    assert gemma["targets"]["ffn"] == [f"layers.*.mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert rows["almanach/moderncamembert-base"]["targets"]["qkv"] == ["layers.*.attn.Wqkv"]
    shown = embtune_here("bases", cwd=tmp_path).stdout
    assert "nomic-embed-text-v2-moe: is a mixture of experts" in " ".join(shown.split())
    assert "q, k, v (one projection)" in shown


def test_of_one_base_every_fact_is_shown_with_its_source(
    tiny_base: TinyBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    base = tiny_base("xlm-roberta")
    done = embtune_here("bases", str(base), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    facts = {row[0]: row[1:] for row in rows if row[0]}
    assert facts["query prompt"] == ['"query: "', "the model's own files"]
    assert facts["pooling"] == ["mean", "the model's own files"]
    assert facts["longest input"][0] == "512 tokens"
    assert facts["target q"][0] == "encoder.layer.*.attention.self.query"
    unknown = embtune_here("bases", "./nowhere", cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no folder ./nowhere" in unknown.stderr


def test_what_is_known_is_told_without_looking_for_a_file() -> None:
    sources = {source for facts in known_bases() for source in facts.sources.values()}
    assert sources
    assert "the model's own files" not in sources
