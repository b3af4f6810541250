"""The wheel: everything that the packages need is in it, nothing else, and nothing rests on the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from search.spec.record import git_commit
from tests.kit.wheel import build_wheel, repository_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == set(repository_files())
    assert {"search/presets/demo.yaml", "search/presets/demo.jsonl"} <= held


def test_the_recorded_commit_is_never_that_of_a_repository_around_the_installed_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    commit = ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-q", "--allow-empty", "-m", "theirs"]
    for command in (["init", "-q"], commit):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site-packages")
    code = "import search.spec.record as r; print(r.__file__, r.git_commit())"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site-packages")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert shown == [str(tmp_path / "site-packages" / "search" / "spec" / "record.py"), "None"]


def test_a_machine_without_git_records_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = git_commit()
    assert here is not None
    assert len(here) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
