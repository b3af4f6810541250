"""The passages that the page searches, and the questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.errors import InputError
from evaluation.files import read_jsonl, text_of
from evaluation.task import Protocol, RetrievalTask, fold
from search.paths import RunFolder
from trainables.data.corpus import CORPUS
from trainables.data.corpus import read_corpus as read_passages
from trainables.data.pairs import GROUP_NAME
from trainables.data.prepared import load_report, load_task
from trainables.data.rows import PARTS


@dataclass(frozen=True)
class Known:
    """A question that the data answers.

    Attributes:
        part: of the run's data, such as train, whose questions the tuned model has learned; empty: of no part of it.
        relevant: positions of the passages that answer it.
    """

    part: str
    relevant: frozenset[int]


@dataclass
class Corpus:
    """C passages, each text once (white space folded), in the order in which they were read.

    Attributes:
        name: what the page calls it.
        texts: of the passages.
        concepts: of each passage, None where none is known.
        known: question, as `matched` writes it -> what answers it.
    """

    name: str
    texts: list[str] = field(default_factory=list)
    concepts: list[str | None] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, concept: str | None = None) -> int:
        """The position of a passage, which is new or there already."""
        key = fold(text)
        place = self._places.setdefault(key, len(self.texts))
        if place == len(self.texts):
            self.texts.append(text.strip())
            self.concepts.append(None)
        if self.concepts[place] is None:
            self.concepts[place] = concept
        return place

    def add_task(self, task: RetrievalTask, part: str = "") -> None:
        """All passages of a task, and what answers its questions."""
        places = {passage: self.add(text) for passage, text in task.corpus.items()}
        for query, text in task.queries.items():
            relevant = frozenset(places[p] for p, grade in task.qrels[query].items() if grade > 0)
            self.known.setdefault(matched(text), Known(part, relevant))

    def find(self, question: str) -> Known | None:
        """What answers a question, None where nothing is known of it."""
        return self.known.get(matched(question))


def matched(question: str) -> str:
    """How questions are recognised.

    >>> matched("  Que signifie LE sigle ? ")
    'que signifie le sigle'
    """
    return fold(question).casefold().rstrip("?!. ")


def run_corpus(run: RunFolder) -> Corpus:
    """Every passage that a run searches, and the questions of each part with what answers them, as the run judges."""
    corpus = Corpus(run.name)
    parts = {part: [row for _, row in read_jsonl(run.data / f"{part}.jsonl")] for part in PARTS}
    for row in chain(*parts.values()):
        corpus.add(row["positive"], _concept(row["concept"]))
    if (run.data / CORPUS).is_file():
        for text in read_passages(run.data).values():
            corpus.add(text)
    for part in reversed(PARTS):  # a question of two parts is one of test
        if parts[part] and _has_answers(parts[part], load_report(run.data).config.protocol):
            corpus.add_task(load_task(run.data, part), part)
    return corpus


def _has_answers(rows: Sequence[dict[str, Any]], protocol: Protocol) -> bool:
    """Whether a part has questions that its protocol can judge: a task without any would be refused."""
    return protocol == "concept" or any(row["kind"] == "definition" for row in rows)


def read_corpus(path: Path) -> Corpus:
    """A BEIR folder, with or without qrels, or a .jsonl file of rows with `text` or `positive`.

    Rows with `anchor` and `positive` are pairs: their anchors are known questions.

    Raises:
        InputError: neither of the two, a row without a text or with half a character, no passages.
    """
    corpus = Corpus(path.stem)
    if path.is_dir() and (path / "corpus.jsonl").is_file():
        _add_rows(corpus, path / "corpus.jsonl")
        for split in sorted(file.stem for file in (path / "qrels").glob("*.tsv")):
            # Its training part is not what this run's model was trained on.
            corpus.add_task(RetrievalTask.load_beir(path, split))
    elif path.is_file() and path.suffix == ".jsonl":
        _add_rows(corpus, path)
    else:
        raise InputError(f"corpus {path}: expected a BEIR folder (corpus.jsonl) or a .jsonl file of passages")
    if not corpus.texts:
        raise InputError(f"corpus {path}: no passages, expected at least one")
    return corpus


def _add_rows(corpus: Corpus, path: Path) -> None:
    answers: dict[str, set[int]] = {}
    for where, row in read_jsonl(path):
        text = text_of(where, row, "positive" if "positive" in row else "text")
        if title := row.get("title"):
            text = f"{title} {text}"
        if not text.strip():
            continue
        if not text.isascii() and text != text.encode("utf-8", "replace").decode():
            raise InputError(f"{where}: a text with half a character (a lone surrogate), expected UTF-8")
        place = corpus.add(text, _concept(row.get("concept", row.get("cluster_id"))))
        if "anchor" in row:
            answers.setdefault(text_of(where, row, "anchor"), set()).add(place)
    corpus.known |= {matched(anchor): Known("", frozenset(places)) for anchor, places in answers.items()}


def _concept(value: object) -> str | None:
    """A concept that the data names. Names that prepare gave to groups are none: the next search makes its own."""
    named = str(value) if isinstance(value, str | int) else ""
    return named if named and not GROUP_NAME.fullmatch(named) else None


def names_concepts(run: RunFolder) -> bool:
    """Whether the source of a run's data names concepts."""
    return any(_concept(row["concept"]) for _, row in read_jsonl(run.data / "train.jsonl"))


def training_pairs(run: RunFolder) -> Iterable[tuple[str, str]]:
    """(anchor, positive) of the training part."""
    for _, row in read_jsonl(run.data / "train.jsonl"):
        yield row["anchor"], row["positive"]
