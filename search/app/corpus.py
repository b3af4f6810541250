"""The passages that the page searches, and the questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.errors import InputError
from evaluation.files import read_jsonl, text_of
from evaluation.task import RetrievalTask, fold
from search.paths import RunFolder
from trainables.data.prepared import DISTRACTORS, load_report
from trainables.data.rows import PARTS


@dataclass(frozen=True)
class Known:
    """A question that the data answers.

    Attributes:
        part: of the data, such as train, whose questions the tuned model has learned; empty: not known.
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
            self.concepts.append(concept)
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
    """The passages of all parts of a run, as a real index holds them, and the questions of each part."""
    corpus = Corpus(run.name)
    protocol = load_report(run.data).config.protocol
    for part in reversed(PARTS):  # a question of two parts is one of test
        rows = [row for _, row in read_jsonl(run.data / f"{part}.jsonl")]
        for row in rows:
            corpus.add(row["positive"], row["concept"])
        anchors, positives, concepts, kinds = (
            [row[name] for row in rows] for name in ("anchor", "positive", "concept", "kind")
        )
        if protocol == "concept" or "definition" in kinds:
            corpus.add_task(RetrievalTask.from_pairs(part, anchors, positives, concepts, kinds, protocol), part)
    if (rest := run.data / DISTRACTORS).is_file():
        for _, row in read_jsonl(rest):
            corpus.add(row["positive"])
    return corpus


def read_corpus(path: Path) -> Corpus:
    """A BEIR folder, with or without qrels, or a .jsonl file of rows with `text` or `positive`.

    Rows with `anchor` and `positive` are pairs: their anchors are known questions.

    Raises:
        InputError: neither of the two, a row without a text, no passages.
    """
    corpus = Corpus(path.stem)
    if path.is_dir() and (path / "corpus.jsonl").is_file():
        splits = sorted(file.stem for file in (path / "qrels").glob("*.tsv"))
        for split in splits:
            corpus.add_task(RetrievalTask.load_beir(path, split), split)
        if not splits:
            _add_rows(corpus, path / "corpus.jsonl")
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
        place = corpus.add(text, _concept(row.get("cluster_id", row.get("concept"))))
        if "anchor" in row:
            answers.setdefault(text_of(where, row, "anchor"), set()).add(place)
    corpus.known |= {matched(anchor): Known("", frozenset(places)) for anchor, places in answers.items()}


def _concept(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def training_pairs(run: RunFolder) -> Iterable[tuple[str, str]]:
    """(anchor, positive) of the training part."""
    for _, row in read_jsonl(run.data / "train.jsonl"):
        yield row["anchor"], row["positive"]
