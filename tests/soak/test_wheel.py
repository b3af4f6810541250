"""The installed wheel searches, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.kit.toy import DEMO
from tests.kit.wheel import PACKAGES, build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


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
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)}, sep='\\n')"
    found = subprocess.run([python, "-c", code], cwd=place, env=clean, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [str(packages / name / "__init__.py") for name in PACKAGES]
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
