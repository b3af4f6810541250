"""The house's own rules: imports run one way, no files or rooms import each other, the command line starts light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {"evaluation": {"trainables", "search"}, "trainables": {"search"}, "search": set()}
FORBIDDEN = {"evaluation": {"ray", "optuna", "peft"}, "trainables": {"ray", "optuna"}, "search": set()}
DOORS = {"evaluation": 13, "trainables": 14, "search": 17}  # at most: what a newcomer sees who opens the package


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in ABOVE for path in (ROOT / package).rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in it: `from a.b import c` gives a.b and a.b.c."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(name: str) -> set[str]:
    """The modules of this project that a module imports; a package only where it is more than its docstring."""
    return (imported(MODULES[name]) & MODULES.keys()) - {name}


def room(name: str) -> str:
    """A file's sub-package; a file at the root of its package is a room of its own."""
    parts = name.split(".")
    return ".".join(parts[:2])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_the_search_for_circles_finds_one() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


@pytest.mark.parametrize("package", ABOVE)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not {name.split(".")[0] for name in imported(path)} & (ABOVE[package] | FORBIDDEN[package]), path


def test_no_two_files_import_each_other() -> None:
    assert len(MODULES) > 80
    assert not circle({name: own_imports(name) - {name.rpartition(".")[0]} for name in MODULES})


def test_no_two_rooms_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        if "." in name:  # a package's own door, such as `search`, opens on all of its rooms
            graph.setdefault(room(name), set()).update(room(other) for other in own_imports(name) if "." in other)
    assert not circle({name: others - {name} for name, others in graph.items()})


@pytest.mark.parametrize("package", DOORS)
def test_the_root_of_a_package_holds_its_front_doors_only(package: str) -> None:
    seen = {p.name for p in (ROOT / package).iterdir() if not p.name.startswith("__")}
    assert len(seen) <= DOORS[package], sorted(seen)


def test_every_room_says_what_it_holds() -> None:
    for package in ABOVE:
        for path in (ROOT / package).rglob("__init__.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_a_file_that_a_comment_or_docstring_names_is_there() -> None:
    named = re.compile(r"\b[\w-]+(?:/[\w-]+)+\.(?:py|md|yaml)\b")
    files = [path for package in ABOVE for path in (ROOT / package).rglob("*.py")]
    found = {(path, name) for path in files for text in prose(path) for name in named.findall(text)}
    assert len(found) >= 3
    assert not [f"{path}: {name}" for path, name in found if not (ROOT / name).is_file()]


def prose(path: Path) -> list[str]:
    """The comments and the texts of a file, docstrings among them."""
    kinds = (tokenize.COMMENT, tokenize.STRING)
    with tokenize.open(path) as file:
        return [token.string for token in tokenize.generate_tokens(file.readline) if token.type in kinds]


def test_docstrings_have_one_form() -> None:
    """What a function raises has a section of its own."""
    run_on = re.compile(r"\bRaises:? (\w+(Error|Failed)\b|\()")
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                assert not run_on.search(ast.get_docstring(node, clean=False) or ""), f"{name}, {node}"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["search"],
        ["plan"],
        ["benchmark"],
        ["data", "check"],
        ["submit"],
        ["watch"],
        ["export"],
        ["report"],
        ["try"],
    ],
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
