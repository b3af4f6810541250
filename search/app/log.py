"""What was asked and judged, in SQLite: the administrator's view, and training pairs for the next search.

Holds no addresses, names or browsers: a question, what was done to it, what was found, how long it took, thumbs.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from evaluation.errors import InputError
from search.app.ask import Asked

Thumb = Literal["up", "down", "none"]
MARK = 0x656D6274  # PRAGMA application_id: "embt"
SCHEMA = f"""
PRAGMA application_id = {MARK};
CREATE TABLE IF NOT EXISTS question
    (id INTEGER PRIMARY KEY, at REAL, asked TEXT, searched TEXT, steps TEXT, columns TEXT);
CREATE TABLE IF NOT EXISTS thumb
    (question INTEGER REFERENCES question, place INTEGER, text TEXT, concept TEXT, up INTEGER, at REAL,
     PRIMARY KEY (question, text));
"""


@dataclass(frozen=True)
class Entry:
    """A question of the log.

    Attributes:
        at: seconds since 1970.
        steps: of its clean-up, as dictionaries of Step.
        columns: for each model its name, milliseconds and the first passages with their scores.
        thumbs: passage -> whether the thumb is up.
    """

    id: int
    at: float
    asked: str
    searched: str
    steps: list[dict[str, Any]]
    columns: list[dict[str, Any]]
    thumbs: dict[str, bool]


class Log:
    """One file, which several threads and processes may write."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            InputError: it cannot be written, or is something else.
        """
        self._path = path
        try:
            with self._open() as base:
                mark = base.execute("PRAGMA application_id").fetchone()[0]
                if mark != MARK and base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise InputError(f"--log {path}: a database of something else, expected a new file or a log")
                base.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise InputError(f"--log {path}: cannot be used ({error}), expected a new file or a log") from None

    def add(self, asked: Asked) -> int:
        """Keep a question; returns its number."""
        steps = json.dumps([asdict(step) for step in asked.cleaned.steps], ensure_ascii=False)
        columns = json.dumps([_told(column) for column in asdict(asked)["columns"]], ensure_ascii=False)
        row = (time.time(), asked.cleaned.asked, asked.cleaned.searched, steps, columns)
        with self._open() as base:
            done = base.execute(
                "INSERT INTO question (at, asked, searched, steps, columns) VALUES (?, ?, ?, ?, ?)", row
            )
            return int(done.lastrowid or 0)

    def judge(self, question: int, place: int, text: str, concept: str | None, thumb: Thumb) -> bool:
        """Keep a thumb, or take it away; False: there is no such question.

        It takes the place of all that the passage got for what was searched, whenever that was asked.
        """
        with self._open() as base:
            if base.execute("SELECT 1 FROM question WHERE id = ?", (question,)).fetchone() is None:
                return False
            base.execute(
                "DELETE FROM thumb WHERE text = ? AND question IN "
                "(SELECT id FROM question WHERE searched = (SELECT searched FROM question WHERE id = ?))",
                (text, question),
            )
            if thumb != "none":
                row = (question, place, text, concept, thumb == "up", time.time())
                # A file of an earlier version has one thumb for each position: the last one stays.
                base.execute("INSERT OR REPLACE INTO thumb VALUES (?, ?, ?, ?, ?, ?)", row)
        return True

    def searched(self, question: int) -> str | None:
        """What was searched under a number, None where it is not there."""
        with self._open() as base:
            row = base.execute("SELECT searched FROM question WHERE id = ?", (question,)).fetchone()
            return str(row[0]) if row else None

    def thumbs(self, searched: str) -> dict[str, bool]:
        """Passage -> the last thumb that a question has, whenever it was asked, and in whichever corpus."""
        with self._open() as base:
            rows = base.execute(
                "SELECT text, up FROM thumb JOIN question ON question = id WHERE searched = ? ORDER BY thumb.at",
                (searched,),
            )
            return {text: bool(up) for text, up in rows}

    def latest(self, count: int = 100) -> list[Entry]:
        """The last questions, newest first."""
        with self._open() as base:
            rows = base.execute("SELECT * FROM question ORDER BY id DESC LIMIT ?", (count,)).fetchall()
            thumbs: dict[int, dict[str, bool]] = {row[0]: {} for row in rows}
            for number, text, up in base.execute("SELECT question, text, up FROM thumb ORDER BY at"):
                if number in thumbs:
                    thumbs[number][text] = bool(up)
            return [
                Entry(number, at, asked, searched, json.loads(steps), json.loads(columns), thumbs[number])
                for number, at, asked, searched, steps, columns in rows
            ]

    def pairs(self) -> list[dict[str, Any]]:
        """Judged questions as rows of a search's data: anchor, positive, negative and, where known, concept.

        One row for each passage with a thumb up; passages with a thumb down are its negatives. Of a question that was
        judged more than once the last thumb counts. A question without a thumb up gives no row.
        """
        last: dict[str, dict[str, tuple[bool, str | None]]] = {}
        with self._open() as base:
            for searched, text, concept, up in base.execute(
                "SELECT searched, text, concept, up FROM thumb JOIN question ON question = id ORDER BY thumb.at"
            ):
                last.setdefault(searched, {})[text] = (bool(up), concept)
        rows = []
        for anchor, judged in last.items():
            negatives = [text for text, (up, _) in judged.items() if not up]
            for text, (up, concept) in judged.items():
                if up:
                    row = {"anchor": anchor, "positive": text, "negative": negatives}
                    rows.append(row | ({"concept": concept} if concept is not None else {}))
        return rows

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of this call's thread, whose changes are kept where the block ends well."""
        with closing(sqlite3.connect(self._path, timeout=10)) as base, base:
            yield base


def _told(column: dict[str, Any]) -> dict[str, Any]:
    """A column without the passages' texts, which are the corpus's."""
    kept = ("rank", "place", "score", "before", "relevant")
    passages = [{key: passage[key] for key in kept} for passage in column["passages"]]
    return {**column, "passages": passages}
