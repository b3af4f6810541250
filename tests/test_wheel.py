"""The wheel: everything that the packages need is in it, nothing else, and nothing rests on the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from search.spec.record import git_commit
from tests.kit.toy import DEMO

ROOT = Path(__file__).parent.parent
PACKAGES = ("evaluation", "search", "trainables")


def repository_files() -> list[str]:
    """Of the packages, as git has them: new ones too, and nothing that it ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy: a build leaves its own folders beside the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in [*repository_files(), "pyproject.toml", "README.md"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for stranger in ("tests", "benchmarks"):
        (source / stranger).mkdir()
        (source / stranger / "__init__.py").touch()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


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
    assert shown == [str(tmp_path / "site-packages" / "search" / "record.py"), "None"]


def test_a_machine_without_git_records_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = git_commit()
    assert here is not None
    assert len(here) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None


@pytest.mark.soak
def test_the_installed_wheel_searches_with_a_copy_of_the_demo(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which has this one's libraries and not its embtune."""
    environment = tmp_path / "an environment"  # with a space: Ray starts its workers through a shell
    python, embtune = environment / "bin" / "python", environment / "bin" / "embtune"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Folders that a .pth file names are searched last, and the .pth files in them (an editable embtune's) are not read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    place = tmp_path / "elsewhere"
    place.mkdir()
    for suffix in (".yaml", ".jsonl"):
        shutil.copy(DEMO.with_suffix(suffix), place)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    code = "import evaluation, search, trainables; print(evaluation.__file__, search.__file__, trainables.__file__)"
    found = subprocess.run([python, "-c", code], cwd=place, env=clean, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(packages / name / "__init__.py") for name in PACKAGES]
    done = subprocess.run(
        [embtune, "search", "demo.yaml", "--smoke", "--runs", "runs"],
        cwd=place,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = place / "runs" / "demo-smoke"
    for name in ("best/modules.json", "benchmark.json", "report.html"):
        assert (run / name).is_file(), name
    assert "cuda" not in (done.stdout + done.stderr).lower()
