"""A question -> what each model found for it. Knows nothing of the web."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import faiss

from evaluation.errors import InputError
from evaluation.task import fold
from search.app.cleanup import Cleaned, CleanUp
from search.app.corpus import Corpus
from search.app.searcher import Nearest, Searcher

LONGEST = 2000  # characters of a question
SHOWN = 10  # passages of a model


@dataclass(frozen=True)
class Passage:
    """A passage that a model found.

    Attributes:
        rank: from 1.
        place: position in the corpus, its name in forms and in the log.
        before: its rank with the first model; None: not among that one's first hundred.
        relevant: whether it answers a known question; None where the question is not known.
    """

    rank: int
    place: int
    text: str
    score: float
    before: int | None
    relevant: bool | None


@dataclass(frozen=True)
class Column:
    """What one model found, the first of them the one that the others are compared with."""

    model: str
    encode_ms: float
    search_ms: float
    passages: tuple[Passage, ...]
    first: bool


@dataclass(frozen=True)
class Asked:
    """A question, what was done to it, and what each model found.

    Attributes:
        known: part of the data whose question it is ("" where it has no parts); None: not known.
    """

    cleaned: Cleaned
    columns: tuple[Column, ...]
    known: str | None


def searching_threads() -> ThreadPoolExecutor:
    """One thread for each core, in each of which FAISS uses one: it searches with the interpreter's lock released."""
    cores = os.cpu_count() or 1
    return ThreadPoolExecutor(cores, initializer=faiss.omp_set_num_threads, initargs=(1,))


@dataclass(frozen=True)
class Desk:
    """The corpus, the models and the clean-up that questions are put to."""

    corpus: Corpus
    searchers: tuple[Searcher, ...]
    clean_up: CleanUp
    smoke: bool = False
    _pool: ThreadPoolExecutor = field(default_factory=searching_threads, init=False, repr=False, compare=False)

    def ask(
        self,
        question: str,
        off: frozenset[str] = frozenset(),
        on: frozenset[str] = frozenset(),
        shown: int = SHOWN,
    ) -> Asked:
        """Clean the question and put it to every model.

        Raises:
            QuestionError: an empty question, or one of more than 2,000 characters.
        """
        cleaned = self.clean_up.clean(checked(question), off, on)
        known = self.corpus.find(cleaned.searched) or self.corpus.find(cleaned.asked)
        # Encoding uses all cores for one model, so the models take turns; the search of one question uses one core.
        encoded = [searcher.encode(cleaned.searched) for searcher in self.searchers]
        rankings = list(self._pool.map(lambda searcher, found: searcher.rank(*found), self.searchers, encoded))
        before = {place: rank for rank, place in enumerate(rankings[0].positions, start=1)}
        columns = []
        for number, (searcher, ranking) in enumerate(zip(self.searchers, rankings, strict=True)):
            passages = self._passages(ranking, shown, before, known.relevant if known else None)
            columns.append(Column(searcher.name, ranking.encode_ms, ranking.search_ms, passages, number == 0))
        return Asked(cleaned, tuple(columns), known.part if known else None)

    def _passages(
        self, ranking: Nearest, shown: int, before: dict[int, int], relevant: frozenset[int] | None
    ) -> tuple[Passage, ...]:
        found = zip(ranking.positions[:shown], ranking.scores, strict=False)
        return tuple(
            Passage(
                rank=rank,
                place=place,
                text=self.corpus.texts[place],
                score=score,
                before=before.get(place),
                relevant=None if relevant is None else place in relevant,
            )
            for rank, (place, score) in enumerate(found, start=1)
        )


class QuestionError(InputError):
    """A question that is not asked: why says which message is shown."""

    def __init__(self, why: Literal["empty", "long"]) -> None:
        super().__init__(f"the question is {why}, expected 1 to {LONGEST:,} characters")
        self.why = why


def checked(question: str) -> str:
    """The question on one line, without characters that are no text.

    Raises:
        QuestionError: nothing is left, or more than 2,000 characters were given.
    """
    if len(question) > LONGEST:
        raise QuestionError("long")
    text = fold("".join(c if c.isprintable() else " " for c in question))
    if not text:
        raise QuestionError("empty")
    return text
