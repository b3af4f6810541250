"""The documents keep their word: commands run or exist, specs load, links lead somewhere, tables are up to date."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml

from search.cli import cli
from search.spec.load import load_spec
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.toy_run import make_run
from trainables.export.manifest import write_manifest

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "make_spec_guide.py"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CHEAP = (
    "--help",
    "plan",
    "bases",
    "data",
    "leaderboard",
    "report",
    "export",
)  # commands that are run here, without a mark
LANGUAGES = {"bash", "yaml", "python", "text"}
PACKAGES = ("search", "trainables", "evaluation")
# What the comment of a command says that is not run here.
MARK = re.compile(r"needs a (hub|GPU|cluster)\b|takes (a minute|(many )?minutes)\b|runs tests\b|serves a page\b")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OWN_PATH = re.compile(rf"(?:{'|'.join(PACKAGES)}|tests|benchmarks|docs)/[\w./-]*")


@dataclass(frozen=True)
class Command:
    """A line of a bash block: its words, and whether its comment says that it is not run here."""

    words: tuple[str, ...]
    marked: bool


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def commands(block: str) -> list[Command]:
    lines = [line for line in block.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]
    return [Command(tuple(shlex.split(line, comments=True)), bool(MARK.search(line))) for line in lines]


def problem(command: Command) -> str:
    """What is wrong with a command, empty where nothing is: an unknown name, option or file, a mark that is missing."""
    program, *rest = command.words
    wrong = next((word for word in rest if own_file(word) and not (ROOT / word).exists()), None)
    if wrong:
        return f"{wrong}: no such file in the repository"
    match program:
        case "embtune":
            return parsed(cli, rest) or ("" if rest[0] in CHEAP else unmarked(command))
        case "ray":
            from ray.scripts.scripts import cli as ray_cli

            return parsed(ray_cli, rest) or unmarked(command)
        case "make":
            targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
            named = [word for word in rest if "=" not in word]  # PYTHON=... is a variable
            return next((f"make {word}: no such target" for word in named if word not in targets), unmarked(command))
        case "python":
            return script(rest) or ("" if rest[0] == "docs/make_spec_guide.py" else unmarked(command))
    return f"{program}: a program that this test does not know"


def own_file(word: str) -> bool:
    return bool(OWN_PATH.fullmatch(word)) or (word.endswith((".yaml", ".jsonl")) and not word.startswith(("my", "$")))


def unmarked(command: Command) -> str:
    return "" if command.marked else "not run by this test: a comment has to say what it needs"


def parsed(command: click.Command, words: list[str]) -> str:
    """Why click would refuse the words, empty where it takes them. Nothing is invoked."""
    while isinstance(command, click.Group) and words[:1] != ["--help"]:
        if not words or words[0] not in command.commands:
            return f"{command.name}: no command {' '.join(words[:1])}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context(command.name, list(words))
    except click.UsageError as error:
        return error.format_message()
    except click.exceptions.Exit:  # --help
        pass
    return ""


def script(words: list[str]) -> str:
    """What is wrong with `python FILE ...` or `python -m MODULE ...`: a file or an option that is not there."""
    if words[:2] == ["-m", "pytest"]:
        return ""
    path = ROOT / (words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0])
    if not path.is_file():
        return f"{words}: no such script"
    source = path.read_text(encoding="utf-8")
    if out := out_of_reach(source, ROOT if words[0] == "-m" else path.parent):
        return f"{path.name}: started so, it finds no {out}"
    options = [word for word in words if word.startswith("--")]
    return next((f"{path.name}: no option {option}" for option in options if f'"{option}"' not in source), "")


def out_of_reach(source: str, start: Path) -> str:
    """The first module that a script imports and does not find, empty where it finds all; `start` is what Python puts
    first on its path: the script's folder, or with -m the current one. Of the clone, the packages alone are installed;
    a script may put the clone on the path itself.
    """
    places = [start, ROOT] if "sys.path.insert(0, str(Path(__file__).parents[1]))" in source else [start]
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = (node.names[0].name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
            beside = any((place / name).is_dir() or (place / f"{name}.py").is_file() for place in places)
            installed = name in PACKAGES or (not (ROOT / name).exists() and find_spec(name) is not None)
            if not beside and not installed:
                return name
    return ""


def named(text: str) -> Iterator[str]:
    """The code spans of a document's prose, each on one line."""
    for span in SPAN.findall(FENCE.sub("", text)):
        yield " ".join(span.split())


def slug(heading: str) -> str:
    """The address of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_base: TinyBase) -> Path:
    """The repository as a user has it after `make demo`: a run in runs/demo, toy as it is, with a real tiny model."""
    folder = tmp_path_factory.mktemp("house")
    base = tiny_base("bert")
    run = make_run(folder, "demo", base=str(base))
    shutil.copytree(base, run / "best")
    write_manifest(run / "best")
    (folder / "runs" / "first").symlink_to(run)
    (folder / "search").symlink_to(ROOT / "search")
    shutil.copytree(ROOT / "docs", folder / "docs")
    return folder


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_exists_with_its_options_and_files(path: Path) -> None:
    found = [command for block in blocks(path.read_text(encoding="utf-8"), "bash") for command in commands(block)]
    assert not [(command.words, wrong) for command in found if (wrong := problem(command))]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("embtune plan search/presets/demo.yaml --jsn", "--jsn"),
        ("embtune export my_run", "DEST"),
        ("embtune search search/presets/demo.yaml", "not run by this test"),
        ("embtune plann my_spec.yaml", "no command plann"),
        ("embtune plan search/presets/demos.yaml", "no such file"),
        ("make demos  # takes minutes", "no such target"),
        ("make demo  # at once", "not run by this test"),
        ("python benchmarks/metrics.py --querys 3  # takes minutes", "no option --querys"),
        ("python -m benchmarks.none  # takes minutes", "no such script"),
        ("python docs/make_app_pictures.py runs/demo  # takes a minute", "it finds no tests"),
        ("ray up cluster.yaml", "not run by this test"),
        ("ray upp cluster.yaml  # needs a cluster", "no command upp"),
        ("curl https://example.org  # needs a hub", "does not know"),
    ],
)
def test_a_wrong_command_is_found(line: str, wrong: str) -> None:
    (command,) = commands(line)
    assert wrong in problem(command)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_named_in_the_prose_exist(path: Path) -> None:
    for span in named(path.read_text(encoding="utf-8")):
        if span.startswith(("embtune ", "make ", "python ", "ray ")):
            words = tuple(shlex.split(span.removesuffix(" ...")))
            wrong = problem(Command(words, marked=True))
            assert not wrong or wrong.startswith("Missing"), f"{span}: {wrong}"


def test_every_command_without_a_mark_runs(house: Path) -> None:
    ran: set[tuple[str, ...]] = set()
    for path in DOCUMENTS:
        for language, body in FENCE.findall(path.read_text(encoding="utf-8")):
            for command in commands(body) if language == "bash" else ():
                if command.marked or command.words in ran:
                    continue
                ran.add(command.words)
                if command.words[0] == "embtune":
                    done = embtune_here(*command.words[1:], cwd=house)
                    assert done.returncode == 0, (path.name, command.words, done.stderr)
                else:
                    runpy.run_path(str(house / command.words[1]), run_name="__main__")
            if language == "python":
                with chdir(house):
                    exec(compile(body, path.name, "exec"), {})
    assert {words[1] for words in ran} >= {"plan", "data", "leaderboard", "report", "export"}
    assert (house / "docs" / "spec.md").read_text() == (ROOT / "docs" / "spec.md").read_text()


def test_the_tables_of_the_spec_are_those_of_the_models() -> None:
    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(GUIDE))["page"](text) == text, "python docs/make_spec_guide.py writes them anew"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_of_a_spec_load(path: Path, house: Path) -> None:
    for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "yaml")):
        keys = yaml.safe_load(block)
        rest = {"data": "{source: pairs.jsonl}", "space": "{base: some/base, r: [8, 16]}"}
        whole = [block, *(f"{key}: {value}" for key, value in rest.items() if key not in keys)]
        spec = house / f"{path.stem}-{number}.yaml"
        spec.write_text("\n".join(whole), encoding="utf-8")
        assert load_spec(spec)


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.stem)
def test_links_images_and_named_files_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in LINK.findall(FENCE.sub("", text)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            headings = HEADING.findall(FENCE.sub("", target.read_text(encoding="utf-8")))
            assert anchor in map(slug, headings), link
    for span in named(text):
        assert not OWN_PATH.fullmatch(span) or (ROOT / span).exists(), span


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_block_says_what_it_is(path: Path) -> None:
    assert {language for language, _ in FENCE.findall(path.read_text(encoding="utf-8"))} <= LANGUAGES


def test_the_readme_is_read() -> None:
    """It fits, and it has every command."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    spans = list(named(text))
    for words in leaves(cli):
        assert any(f"{span} ".startswith(f"embtune {words} ") for span in spans), f"embtune {words}"


def leaves(group: click.Group) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from (f"{name} {leaf}" for leaf in leaves(command))
        else:
            yield name


def test_the_design_shows_every_room() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert not {room for room in rooms if not re.search(rf"^ *{room}/ ", text, re.MULTILINE)}


def test_the_spec_page_names_every_preset() -> None:
    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    presets = [path.name for path in (ROOT / "search" / "presets").glob("*.yaml")]
    assert presets
    assert not [name for name in presets if f"| `{name}` |" not in text]
