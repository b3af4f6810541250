"""A run that came to its end, which the tests of this room share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TinyBase
from tests.kit.ended_run import make_ended_run
from tests.kit.reload import reloading_here


@pytest.fixture(scope="session")
def ended(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder. Do not write into it."""
    return make_ended_run(tmp_path_factory.mktemp("ended"), tiny_base("bert"), tiny_base("bert", width=48))


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    """A copy to write in."""
    return Path(shutil.copytree(ended, tmp_path / "toy"))


@pytest.fixture
def reload_here() -> Iterator[None]:
    """Exports are read back in this process."""
    with reloading_here():
        yield
