"""The house's own rules: imports run one way, and the command line starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {"evaluation": {"trainables", "search"}, "trainables": {"search"}, "search": set()}
FORBIDDEN = {"evaluation": {"ray", "optuna", "peft"}, "trainables": {"ray", "optuna"}, "search": set()}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ABOVE)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & (ABOVE[package] | FORBIDDEN[package]), path


@pytest.mark.parametrize(
    "command", [[], ["search"], ["plan"], ["benchmark"], ["data", "check"], ["submit"], ["export"], ["report"]]
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom search.cli import cli\n"
        f"result = CliRunner().invoke(cli, {[*command, '--help']!r})\n"
        "assert result.exit_code == 0, result.output\n"
        "heavy = {'ray', 'torch', 'optuna', 'transformers', 'datasets', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_flag_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "search", "search", "spec.yaml", "--trails", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--trails" in done.stderr
