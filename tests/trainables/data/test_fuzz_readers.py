"""Broken files: each ends in one clear line that names the file (and the row), or is read rightly."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from evaluation.errors import InputError
from trainables.check.check import check_file
from trainables.data.config import DataConfig
from trainables.data.pairs import read_pairs
from trainables.data.rows import Pair
from trainables.prepare import prepare

COUNT = 60
ROWS = [
    {"anchor": f"sigle {at}", "positive": f"définition n° {at}, dite « œuvre »", "concept": f"c{at}"}
    for at in range(COUNT)
]
TEXTS = [(row["anchor"], row["positive"]) for row in ROWS]


@dataclass(frozen=True)
class Case:
    """A file and what must come of it.

    Attributes:
        name: file name.
        content: its bytes.
        line: where the error is, where the file cannot be used; None: no line, or none in particular.
        texts: (anchor, positive) of the pairs, where the file is read rightly; None: it is refused.
    """

    name: str
    content: bytes
    line: int | None = None
    texts: tuple[tuple[str, str], ...] | None = None


def jsonl() -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]


def csv_lines(delimiter: str = ",") -> list[bytes]:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["concept", "anchor", "positive"], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    return [line.encode() for line in text.getvalue().splitlines()]


def but(*missing: int) -> tuple[tuple[str, str], ...]:
    return tuple(text for at, text in enumerate(TEXTS) if at not in missing)


def replaced(at: int, anchor: str) -> tuple[tuple[str, str], ...]:
    return tuple((anchor, text[1]) if row == at else text for row, text in enumerate(TEXTS))


def jsonl_cases() -> Iterator[tuple[str, Case]]:
    def line(at: int, new: bytes) -> bytes:
        lines = jsonl()
        lines[at] = new
        return b"\n".join(lines) + b"\n"

    def cell(value: object, name: str = "anchor") -> bytes:
        return json.dumps(ROWS[at] | {name: value}).encode()

    for at in (0, 1, 29, COUNT - 1):
        whole = jsonl()[at]
        bad: dict[str, bytes] = {
            "half a line": whole[: len(whole) // 2],
            "a quarter of a line": whole[: len(whole) // 4],
            "garbage after": whole + b" x",
            "two objects": whole + whole,
            "a list": b'["a", "b"]',
            "a number": b"17",
            "a text": b'"anchor"',
            "null alone": b"null",
            "not JSON": b"anchor: a, positive: b",
            "single quotes": whole.replace(b'"', b"'"),
            "latin-1": json.dumps(ROWS[at], ensure_ascii=False).replace("œ", "é").encode("latin-1"),
            "half a UTF-8 character": whole.replace("œ".encode(), "œ".encode()[:1]),
            "a bare control character": whole.replace(b"sigle", b"si\x00gle"),
            "too deep": b"[" * 100_000,
            "too deep an object": b'{"anchor":' * 100_000,
            "an object as anchor": cell({"text": "a"}),
            "a list as anchor": cell(["a"]),
            "true as anchor": cell(True),
            "a list as positive": cell([], "positive"),
            "half a surrogate": whole.replace(b"sigle", b"\\ud800"),
            "infinite": whole.replace(f'"sigle {at}"'.encode(), b"Infinity"),
            "a huge number": whole.replace(f'"sigle {at}"'.encode(), b"9" * 10_000),
            "an object as concept": cell({}, "concept"),
            "a list of objects as negative": cell([{}], "negative"),
            "a word as split": cell("training?", "split"),
        }
        for name, new in bad.items():
            yield f"{name}, row {at + 1}", Case("a.jsonl", line(at, new), line=at + 1)
        missing: dict[str, bytes] = {
            "null": cell(None),
            "NaN": whole.replace(f'"sigle {at}"'.encode(), b"NaN"),
            "blank": cell("  \t "),
            "empty": cell(""),
            "key missing": json.dumps({"positive": "p"}).encode(),
            "empty object": b"{}",
            "null positive": cell(None, "positive"),
            "blank line": b"   ",
        }
        for name, new in missing.items():
            yield f"{name}, row {at + 1}", Case("a.jsonl", line(at, new), texts=but(at))
        right: dict[str, tuple[bytes, str]] = {
            "number as anchor": (cell(12), "12"),
            "float as anchor": (cell(1.5), "1.5"),
            "huge field": (cell("x" * 2_000_000), "x" * 2_000_000),
            "escapes": (cell("\u2028 é \x85 \x1f"), "é"),
            "key twice": (whole[:-1] + b', "anchor": "last"}', "last"),
            "more columns": (whole[:-1] + b', "note": [1, {"a": null}]}', f"sigle {at}"),
        }
        for name, (new, anchor) in right.items():
            yield f"{name}, row {at + 1}", Case("a.jsonl", line(at, new), texts=replaced(at, anchor))
    content = b"\n".join(jsonl())
    yield "byte order mark", Case("a.jsonl", b"\xef\xbb\xbf" + content, texts=tuple(TEXTS))
    yield "CRLF", Case("a.jsonl", content.replace(b"\n", b"\r\n"), texts=tuple(TEXTS))
    yield "UTF-16", Case("a.jsonl", content.decode().encode("utf-16"), texts=tuple(TEXTS))
    yield "UTF-16 cut", Case("a.jsonl", content.decode().encode("utf-16")[:-1])
    yield "empty", Case("a.jsonl", b"")
    yield "white space", Case("a.jsonl", b"\n \n")
    yield "binary", Case("a.jsonl", bytes(range(256)) * 20, line=1)
    yield "one long line without end", Case("a.jsonl", b"x" * 3_000_000, line=1)
    yield "other columns", Case("a.jsonl", content.replace(b'"anchor"', b'"question"'))


def csv_cases() -> Iterator[tuple[str, Case]]:
    for name, delimiter in (("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "\t")):
        lines = csv_lines(delimiter)
        mark = delimiter.encode()
        label = f"{name} {delimiter!r}"
        for at in (1, 2, 30, COUNT):
            for what, new, error in (
                ("a cell too few", lines[at].split(mark)[0], True),
                ("a cell too many", lines[at] + mark + b"more", True),
                ("many cells too many", lines[at] + mark * 500, True),
                ("latin-1", lines[at].replace("œ".encode(), b"\xe9"), True),
                ("quotes that do not close", mark.join([b"c", b'"open', b"p"]), True),
                ("text after quotes", mark.join([b"c", b'"a" b', b"p"]), True),
                ("blank anchor", mark.join([b"c", b" ", b"p"]), False),
                ("only delimiters", mark * 2, False),
                ("blank line", b"", False),
            ):
                broken = [*lines[:at], new, *lines[at + 1 :]]
                content = b"\n".join(broken) + b"\n"
                found = Case(name, content, line=at + 1) if error else Case(name, content, texts=but(at - 1))
                yield f"{label}: {what}, line {at + 1}", found
        content = b"\n".join(lines)
        rightly = tuple(TEXTS)
        yield f"{label}: byte order mark", Case(name, b"\xef\xbb\xbf" + content, texts=rightly)
        yield f"{label}: CRLF", Case(name, content.replace(b"\n", b"\r\n"), texts=rightly)
        yield f"{label}: UTF-16", Case(name, content.decode().encode("utf-16"), texts=rightly)
        yield f"{label}: blank lines", Case(name, content.replace(b"\n", b"\n\n"), texts=rightly)
        yield f"{label}: header alone", Case(name, lines[0] + b"\n")
        yield f"{label}: a name twice", Case(name, content.replace(b"concept", b"anchor", 1), line=1)
        yield f"{label}: no header", Case(name, b"\n".join(lines[1:]))
        yield f"{label}: latin-1 header", Case(name, content.replace(b"concept", b"conc\xe9pt", 1), line=1)
        yield f"{label}: carriage returns alone", Case(name, content.replace(b"\n", b"\r"), line=1)
        huge = b"x" * 500_000
        wide = b"\n".join([*lines[:-1], lines[-1].replace(f"sigle {COUNT - 1}".encode(), huge)])
        yield f"{label}: huge field", Case(name, wide, texts=replaced(COUNT - 1, huge.decode()))


def json_cases() -> Iterator[tuple[str, Case]]:
    whole = b"[\n" + b",\n".join(jsonl()) + b"\n]"
    for share in range(1, 12):
        yield f"json cut at {share}/12", Case("a.json", whole[: len(whole) * share // 12])
    for name, content in {
        "no comma": whole.replace(b"},", b"}", 1),
        "a word in the list": whole.replace(b"[", b"[word, ", 1),
        "an object that is no list": b'{\n "data": [\n  1\n ]\n}',
        "a number": b"12",
        "a text": b'"anchor"',
        "empty list": b"[]",
        "list of numbers": b"[1, 2]",
        "list of lists": b"[[1, 2]]",
        "latin-1": whole.replace("œ".encode(), b"\xe9", 1),
        "too deep": b"[" * 100_000,
        "empty": b"",
    }.items():
        yield f"json: {name}", Case("a.json", content)
    for name, content in {
        "byte order mark": b"\xef\xbb\xbf" + whole,
        "comma at the end": whole[:-1] + b",]",
        "one line": whole.replace(b"\n", b""),
        "indented": json.dumps(ROWS, indent=8).encode(),
        "JSON Lines": b"\n".join(jsonl()),
        "white space around": b" \n\n" + whole + b" \n ",
    }.items():
        yield f"json: {name}", Case("a.json", content, texts=tuple(TEXTS))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def parquet_cases() -> Iterator[tuple[str, Case]]:
    table = pa.Table.from_pylist(ROWS)
    whole = parquet(table)
    for share in range(1, 8):
        yield f"parquet cut at {share}/8", Case("a.parquet", whole[: len(whole) * share // 8])
    yield "parquet: text", Case("a.parquet", b"\n".join(jsonl()))
    yield "parquet: no rows", Case("a.parquet", parquet(table.slice(0, 0)))
    yield "parquet: other columns", Case("a.parquet", parquet(table.rename_columns(["a", "b", "c"])))
    objects = pa.Table.from_pylist([{**row, "anchor": {"x": 1}} for row in ROWS])
    yield "parquet: objects", Case("a.parquet", parquet(objects), line=1)
    holes = pa.Table.from_pylist([{**row, "anchor": None if at == 3 else row["anchor"]} for at, row in enumerate(ROWS)])
    yield "parquet: null", Case("a.parquet", parquet(holes), texts=but(3))
    dictionary = table.set_column(0, "anchor", table["anchor"].dictionary_encode())
    yield "parquet: dictionary", Case("a.parquet", parquet(dictionary), texts=tuple(TEXTS))


CASES = {
    name: case
    for cases in (jsonl_cases, csv_cases, json_cases, parquet_cases)
    for name, case in cases()
}  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.mark.parametrize("name", CASES)
def test_broken_file(name: str, folder: Path) -> None:
    case = CASES[name]
    path = folder / case.name
    path.write_bytes(case.content)
    report = check_file(path)
    if case.texts is not None:
        assert report.unusable is None
        pairs = read_pairs(DataConfig(source=case.name), folder)
        assert tuple((p.anchor, p.positive) for p in pairs if isinstance(p, Pair)) == case.texts
        return
    _check_line(report.unusable, case.name)
    if case.line is not None:
        assert f"{case.name}:{case.line}:" in str(report.unusable)


def _check_line(problem: str | None, name: str) -> None:
    assert problem is not None
    assert "\n" not in problem
    assert name in problem or "column" in problem or "no row" in problem
    assert len(problem) < 400


def test_prepare_refuses_with_the_same_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*jsonl()[:5], b"{", *jsonl()[5:]]))
    with pytest.raises(InputError, match=r"^data: a\.jsonl:6: not JSON"):
        prepare(DataConfig(source="a.jsonl"), tmp_path, 0, tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()


def _mutated(content: bytes, rng: random.Random) -> bytes:
    changes: list[Callable[[bytes, int], bytes]] = [
        lambda data, at: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        lambda data, at: data[:at] + data[at + rng.randrange(1, 40) :],
        lambda data, at: data[:at] + rng.randbytes(rng.randrange(1, 10)) + data[at:],
        lambda data, at: data[:at],
        lambda data, at: data[:at] + data[max(0, at - 30) :],
    ]
    for _ in range(rng.randrange(1, 4)):
        content = rng.choice(changes)(content, rng.randrange(len(content)))
    return content or b"\n"


@pytest.mark.parametrize("seed", range(40))
def test_any_damage_ends_in_a_line_or_in_pairs(seed: int, folder: Path) -> None:
    """Whatever bytes change: no other exception, and what is read are texts."""
    rng = random.Random(seed)
    whole = {
        "m.jsonl": b"\n".join(jsonl()),
        "m.json": json.dumps(ROWS, ensure_ascii=False).encode(),
        "m.csv": b"\n".join(csv_lines()),
        "m.tsv": b"\n".join(csv_lines("\t")),
        "m.parquet": parquet(pa.Table.from_pylist(ROWS)),
    }
    for name, content in whole.items():
        (folder / name).write_bytes(_mutated(content, rng))
        report = check_file(name, folder=folder)
        if report.unusable is not None:
            assert "\n" not in report.unusable
            assert len(report.unusable) < 400
        else:
            assert report.kept["train"] > 0
