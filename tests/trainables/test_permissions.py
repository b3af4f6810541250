"""What is written is as readable as the user's umask says: on a shared disk a colleague can load it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.files import usual_modes, write_whole
from tests.conftest import TEXTS, TinyBase
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.model.loaded import forget_bases
from trainables.model.stand_ins import make_stand_in
from trainables.training.checkpoint import save_weights

USUAL = {0o022: (0o644, 0o755), 0o027: (0o640, 0o750)}


@pytest.fixture(params=USUAL, ids=oct)
def usual(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Modes of new files and of new folders, under the umask that the test runs with."""
    before = os.umask(request.param)
    yield USUAL[request.param]
    os.umask(before)


def modes(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*"))}


def test_a_folder_for_its_owner_alone_becomes_a_usual_one(tmp_path: Path, usual: tuple[int, int]) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0o700)
    for path in (folder / "weights", folder / "inner" / "weights"):
        path.touch(mode=0o600)
    usual_modes(folder)
    assert modes(folder) == {(False, usual[0]), (True, usual[1])}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_text_that_is_written_whole_is_a_usual_file(tmp_path: Path, usual: tuple[int, int]) -> None:
    write_whole(tmp_path / "text", "x")
    assert (tmp_path / "text").stat().st_mode & 0o777 == usual[0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_of_a_checkpoint_are_usual_files(
    tiny_base: TinyBase, tmp_path: Path, usual: tuple[int, int], method: str
) -> None:
    config = TrialConfig.model_validate({"base": str(tiny_base("bert")), "method": method, "r": 4, "lr": 1e-3})
    save_weights(build_model(config, "cpu"), tmp_path / "checkpoint")
    assert modes(tmp_path / "checkpoint") == {(False, usual[0]), (True, usual[1])}


def test_a_converted_base_is_a_usual_folder(tiny_base: TinyBase, tmp_path: Path, usual: tuple[int, int]) -> None:
    forget_bases()
    config = TrialConfig.model_validate({"base": str(tiny_base("bert")), "method": "none", "precision": "bf16"})
    build_model(config, "cpu", cache_folder=tmp_path / "cache")
    assert modes(tmp_path / "cache") == {(False, usual[0]), (True, usual[1])}


def test_a_stand_in_is_a_usual_folder(tmp_path: Path, usual: tuple[int, int]) -> None:
    path = make_stand_in(TrialConfig(base="intfloat/multilingual-e5-small"), TEXTS, tmp_path / "stand-ins", layers=1)
    assert modes(path) == {(False, usual[0]), (True, usual[1])}
