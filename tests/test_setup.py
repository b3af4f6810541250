"""The set-up on anyone's machine: what the Makefile takes, refuses in one line, and the versions it installs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PINNED = re.compile(r"(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9._!]+)?")  # without a build such as +cpu, which others lack
FITS = f'exec "{sys.executable}" "$@"'
SHIM = 'echo "pyenv: python: command not found" >&2; exit 127'  # a name that is found and does not run

Make = Callable[..., subprocess.CompletedProcess[str]]


def test_the_constraints_are_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PINNED.fullmatch(line)] == []
    assert lines[0].startswith("#"), "says how the file is made"
    assert len(lines) > 50


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(*arguments, python3_11="shell code", ...)`: the Makefile's own copy, in a folder with a space in its name,
    on a machine that has these Pythons and no other."""
    project, tools = tmp_path / "a project", tmp_path / "tools"
    project.mkdir()
    tools.mkdir()
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    for tool in ("grep", "make", "sh"):
        found = shutil.which(tool)
        assert found, tool
        (tools / tool).symlink_to(found)

    def run(*arguments: str, **pythons: str) -> subprocess.CompletedProcess[str]:
        for name, code in pythons.items():
            script = tools / name.replace("_", ".")
            script.write_text(f"#!/bin/sh\n{code}\n")
            script.chmod(0o755)
        command = [str(tools / "make"), *arguments]
        environment = {"PATH": str(tools), "HOME": str(tmp_path)}
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    return run


def refused(done: subprocess.CompletedProcess[str], tmp_path: Path) -> str:
    """The one line of a set-up that stopped before it made anything."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert not (tmp_path / "a project" / ".venv").exists()
    return done.stderr


def without_ensurepip(tmp_path: Path) -> str:
    """A Python as Debian has it without python3-venv."""
    folder = tmp_path / "debian"
    folder.mkdir()
    (folder / "ensurepip.py").write_text("raise ModuleNotFoundError('No module named ensurepip')\n")
    return f'PYTHONPATH="{folder}" {FITS}'


def of_version(tmp_path: Path, major: int, minor: int) -> str:
    """A Python that says it is another."""
    folder = tmp_path / f"python-{major}.{minor}"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.version_info = ({major}, {minor}, 0, 'final', 0)\n")
    return f'PYTHONPATH="{folder}" {FITS}'


def test_the_first_python_that_runs_and_can_make_an_environment_is_taken(make: Make, tmp_path: Path) -> None:
    planned = make("-n", "demo", python3_11=SHIM, python3_12=without_ensurepip(tmp_path), python3_13=FITS, python3=FITS)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines()[0] == '"python3.13" -m venv .venv'


def test_a_python_3_is_taken_where_no_name_says_more(make: Make) -> None:
    assert '"python3" -m venv .venv' in make("-n", "setup", python3=FITS).stdout


def test_no_python_at_all_is_one_line(make: Make, tmp_path: Path) -> None:
    line = refused(make("demo"), tmp_path)
    assert "no Python from 3.11 to 3.13 runs here as any of python3.11 python3.12 python3.13 python3: install" in line


@pytest.mark.parametrize("minor", [10, 14])
def test_a_python_that_is_too_old_or_too_new_is_one_line(make: Make, tmp_path: Path, minor: int) -> None:
    done = make("setup", python3_11=SHIM, python3=of_version(tmp_path, 3, minor))
    assert "no Python from 3.11 to 3.13" in refused(done, tmp_path)


def test_a_python_without_ensurepip_is_one_line_that_says_what_to_install(make: Make, tmp_path: Path) -> None:
    line = refused(make("setup", python3=without_ensurepip(tmp_path)), tmp_path)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"{version} cannot make a virtual environment" in line
    assert f"apt install {version}-venv" in line


def test_the_python_that_was_named_is_taken_or_refused_but_never_replaced(make: Make, tmp_path: Path) -> None:
    assert "PYTHON=python3.13" in refused(
        make("setup", "PYTHON=python3.13", python3_11=FITS, python3_13=SHIM), tmp_path
    )
    named = tmp_path / "my tools" / "python"
    named.parent.mkdir()
    named.write_text(f"#!/bin/sh\n{FITS}\n")
    named.chmod(0o755)
    assert make("-n", "setup", f"PYTHON={named}").stdout.splitlines()[0] == f'"{named}" -m venv .venv'


@pytest.mark.parametrize(
    "line", ["x @ file:///tmp/x-1.0-py3-none-any.whl", "/tmp/x.whl", "x==1.0+cpu", "-e .", "x>=1.0"]
)
def test_a_constraint_that_is_no_version_is_one_line_before_anything_is_installed(
    make: Make, tmp_path: Path, line: str
) -> None:
    assert not PINNED.fullmatch(line)
    with (tmp_path / "a project" / "constraints.txt").open("a") as constraints:
        constraints.write(line + "\n")
    number = len((ROOT / "constraints.txt").read_text().splitlines()) + 1
    assert f"constraints.txt:{number}:{line} is not name==version" in refused(make("demo", python3=FITS), tmp_path)


def test_an_environment_is_made_in_a_folder_with_a_space_and_its_pip_runs(make: Make, tmp_path: Path) -> None:
    made = make(".venv/bin/pip", python3=FITS)
    assert made.returncode == 0, made.stderr
    pip = tmp_path / "a project" / ".venv" / "bin" / "pip"
    assert subprocess.run([pip, "--version"], capture_output=True, text=True, check=True).stdout.startswith("pip ")
