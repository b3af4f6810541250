"""Read pairs from files, row by row: what is wrong with a row comes out beside its line number."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet

from evaluation.errors import InputError
from trainables.data.beir import read_beir
from trainables.data.config import DataConfig, Files, Hub
from trainables.data.rows import PART_NAMES, PARTS, BadRow, RawRow

CHUNK = 1 << 20  # characters of a .json file that are read at a time
csv.field_size_limit(1 << 30)  # a long passage is no error; the default of 128 KiB calls it one


def read_rows(config: DataConfig, folder: Path) -> Iterator[RawRow | BadRow]:
    """Every row of the source, in its order, one at a time.

    Args:
        config: the `data:` section.
        folder: where relative paths start, the spec's folder.

    Raises:
        InputError: a file that is missing, of an unknown kind, or that cannot be read any further.
    """
    source = config.source
    if isinstance(source, Hub):
        yield from _limited(_read_hub(source), config.max_rows)
    elif isinstance(source, Files):
        for part in PARTS:
            name = getattr(source, part)
            if name is not None:
                yield from _limited(_read_path(folder / name, part), config.max_rows)
    else:
        yield from _limited(_read_path(folder / source, ""), config.max_rows)


def _limited(rows: Iterator[RawRow | BadRow], limit: int | None) -> Iterator[RawRow | BadRow]:
    counts: dict[str, int] = {}
    for row in rows:
        part = row.part if isinstance(row, RawRow) else ""
        counts[part] = counts.get(part, 0) + 1
        if limit is None or counts[part] <= limit:
            yield row


def _read_path(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    if path.is_dir():
        return _read_folder(path, part)
    if not path.is_file():
        raise InputError(f"{path.resolve()}: no such file or folder")
    readers = {
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: ending {path.suffix!r}, expected one of {', '.join(readers)} or a folder")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file, expected rows with an anchor and a positive")
    return reader(path, part)


# Text files


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines of a text file; None for a line that is not in the file's encoding.

    UTF-8, with or without its mark, and UTF-16 where the mark says so.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            with path.open(encoding="utf-16", newline="") as text:
                yield from enumerate(text, start=1)
        except UnicodeError as error:
            raise InputError(f"{path}: starts as UTF-16 but is not ({error}), expected UTF-8") from None
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError:
                yield number, None


NOT_UTF8 = "not UTF-8 (Windows-1252 perhaps), expected a file saved as UTF-8"


def _read_jsonl(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    for number, line in _lines(path):
        if line is None:
            yield BadRow(path.name, number, NOT_UTF8)
        elif line.strip():
            yield _json_row(path.name, number, part, line)


def _json_row(file: str, number: int, part: str, text: str) -> RawRow | BadRow:
    try:
        cells = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(file, number, f"not JSON ({_why(error)}), expected one object")
    return _object_row(file, number, part, cells)


def _object_row(file: str, number: int, part: str, cells: Any) -> RawRow | BadRow:
    if not isinstance(cells, dict):
        return BadRow(file, number, f"{type(cells).__name__}, expected an object with the columns as keys")
    return RawRow(file, number, part, cells)


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _read_json(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    """A list of objects, decoded one element at a time; a .json file that holds JSON Lines is read as such.

    `line` is the number of the element.
    """
    text = _Text(path)
    text.skip_space()
    if text.peek() == "{":
        yield from _read_jsonl(path, part)
        return
    if text.take() != "[":
        raise InputError(f"{path}: starts with neither [ nor {{, expected a list of objects")
    number = 0
    text.skip_space()
    while text.peek() != "]":
        number += 1
        try:
            cells = text.value()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: element {number}: not JSON ({_why(error)}), expected an object") from None
        yield _object_row(path.name, number, part, cells)
        text.skip_space()
        if text.peek() == ",":
            text.take()
            text.skip_space()
        elif text.peek() != "]":
            raise InputError(f"{path}: after element {number}: {text.peek()!r}, expected a comma or ]")


class _Text:
    """A JSON text that is read in pieces, so that a long list is never in memory as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces = self._read()
        self._text = ""
        self._at = 0

    def _read(self) -> Iterator[str]:
        held: list[str] = []
        size = 0
        for number, line in _lines(self._path):
            if line is None:
                raise InputError(f"{self._path}:{number}: {NOT_UTF8}")
            held.append(line)
            size += len(line)
            if size >= CHUNK:
                yield "".join(held)
                held, size = [], 0
        yield "".join(held)

    def _more(self) -> bool:
        piece = next(self._pieces, "")
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character, empty at the end."""
        while self._at >= len(self._text):
            if not self._more():
                return ""
        return self._text[self._at]

    def take(self) -> str:
        character = self.peek()
        self._at += 1
        return character

    def skip_space(self) -> None:
        while (character := self.peek()) and character.isspace():
            self._at += 1

    def value(self) -> Any:
        """The next JSON value; more of the file is read until it is whole."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():
                continue  # a number that ends with the piece may go on in the next
            self._at = end
            return value


def _read_csv(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    """A header and rows. TSV: tabs. CSV: the one of , ; and tab that the header has most of (ties: in that order)."""
    undecodable: list[int] = []

    def decoded() -> Iterator[str]:
        for number, line in _lines(path):
            if line is None:
                undecodable.append(number)
            yield line if line is not None else "\n"

    first = next((line for _, line in _lines(path) if line and line.strip()), "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # Quotes that do not close swallow all that follows: nothing after this row can be trusted.
            reason = str(error).split(" - ")[0]
            raise InputError(
                f"{path}:{number}: {reason}; expected cells in quotes closed, quotes in them doubled"
            ) from None
        if undecodable:
            if not header:
                raise InputError(f"{path}:{undecodable[0]}: {NOT_UTF8}")
            yield BadRow(path.name, undecodable[0], NOT_UTF8)
            undecodable.clear()
            continue
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if len(set(header)) != len(header):
                raise InputError(f"{path}:{number}: header {', '.join(header)}: a name stands there twice")
        elif len(cells) != len(header):
            yield BadRow(path.name, number, f"{len(cells)} cells, expected {len(header)} as in the header")
        else:
            yield RawRow(path.name, number, part, dict(zip(header, cells, strict=True)))


# Other sources


def _read_parquet(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for cells in batch.to_pylist():
                    number += 1
                    yield RawRow(path.name, number, part, cells)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: after row {number}: not Parquet or damaged ({reason})") from None


def _read_folder(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    if (path / "corpus.jsonl").is_file():
        return read_beir(path, part)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _read_saved(path, part)
    raise InputError(f"{path}: neither a BEIR folder (corpus.jsonl) nor one of datasets' save_to_disk (state.json)")


def _read_saved(path: Path, part: str) -> Iterator[RawRow | BadRow]:
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be loaded as a saved data set ({_line(error)})") from None
    yield from _read_loaded(path.name, loaded, part)


def _read_hub(source: Hub) -> Iterator[RawRow | BadRow]:
    try:
        loaded = datasets.load_dataset(
            source.hub, source.name, split=source.split, revision=source.revision, streaming=True
        )
    except Exception as error:  # the hub client raises a dozen kinds; the user needs its one line
        raise InputError(f"data set {source.hub}: cannot be loaded ({_line(error)})") from None
    yield from _read_loaded(source.hub, loaded, "")


def _read_loaded(name: str, loaded: Any, part: str) -> Iterator[RawRow | BadRow]:
    """A datasets.Dataset or IterableDataset, or a dictionary of them by split."""
    if not isinstance(loaded, dict):
        loaded = {part: loaded}
    for split, rows in loaded.items():
        own = part or PART_NAMES.get(split, split)
        if own and own not in PARTS:
            continue
        for number, cells in enumerate(rows, start=1):
            yield RawRow(f"{name}[{split}]" if split else name, number, own, cells)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
