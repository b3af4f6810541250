"""What appears by a rename is on the disk by then: a power cut right afterwards leaves it whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.embeddings import unit_rows
from evaluation.files import aside, put_in_place
from tests.conftest import TEXTS, TinyBase
from trainables.config import TrialConfig
from trainables.export.export import export_model
from trainables.export.mix import Mix
from trainables.model.build import build_model
from trainables.model.loaded import forget_bases


class Disk:
    """Watches what is synced, and notes what a rename put in place that was not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.renamed: list[Path] = []
        self.lost: list[Path] = []
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def watched_fsync(descriptor: int) -> None:
            fsync(descriptor)
            self.synced.add(os.fstat(descriptor).st_ino)

        def watched(move: Any) -> Any:
            def moved(source: Any, target: Any, **options: Any) -> None:
                inside = sorted(Path(source).rglob("*")) if Path(source).is_dir() else []
                self.lost += [path for path in [Path(source), *inside] if path.stat().st_ino not in self.synced]
                move(source, target, **options)
                self.renamed.append(Path(target))

            return moved

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "rename", watched(rename))
        monkeypatch.setattr(os, "replace", watched(replace))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_converted_base_is_on_the_disk_before_it_appears(tiny_base: TinyBase, tmp_path: Path, disk: Disk) -> None:
    forget_bases()
    build_model(TrialConfig(base=str(tiny_base("bert")), precision="bf16"), "cpu", cache_folder=tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder in disk.renamed
    assert (folder / "model.safetensors").stat().st_ino in disk.synced
    assert disk.lost == []
    assert folder.parent.stat().st_ino in disk.synced  # and so is its name


def test_an_exported_model_is_on_the_disk_before_it_appears(tiny_base: TinyBase, tmp_path: Path, disk: Disk) -> None:
    config = TrialConfig(base=str(tiny_base("bert")), method="none", max_length=32)
    dest = tmp_path / "best"
    mix = Mix.of(config, tmp_path)
    export_model(mix, dest, list(TEXTS[:2]), list(TEXTS), {"base": config.base}, "# card\n", device="cpu")
    assert dest in disk.renamed
    assert {path.stat().st_ino for path in dest.rglob("*")} <= disk.synced
    assert disk.lost == []
    assert tmp_path.stat().st_ino in disk.synced


def test_shared_embeddings_are_on_the_disk_before_they_appear(tmp_path: Path, disk: Disk) -> None:
    with aside(tmp_path / "embeddings.npy") as draft, draft.open("wb") as file:
        np.save(file, unit_rows(np.ones((3, 4), dtype=np.float32)))
    assert disk.renamed == [tmp_path / "embeddings.npy"]
    assert disk.lost == []


def test_a_folder_of_folders_is_synced_to_its_leaves(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "draft" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "draft" / "1_Pooling" / "config.json").write_text("{}")
    put_in_place(tmp_path / "draft", tmp_path / "model")
    assert len({path.stat().st_ino for path in (tmp_path / "model").rglob("*")} & disk.synced) == 2
    assert disk.lost == []
