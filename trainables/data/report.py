"""What the check of the data found: shown by `embtune data check`, kept as a run's data/report.json."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from trainables.data.config import DataConfig
from trainables.data.survey import Unseen


class Place(BaseModel):
    """A row that shows a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    text: str


class Finding(BaseModel):
    """One thing that the check found, and what the search does about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: int
    what: str
    action: str
    examples: tuple[Place, ...] = ()


class Lengths(BaseModel):
    """Lengths of one column: of a sample in tokens where the base is known, else of all rows in characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    of: int
    mean: float
    median: float
    p95: float
    longest: int
    max_length: int | None = None
    cut: float | None = None

    @classmethod
    def summary(cls, values_N: np.ndarray, unit: str, limit: int | None) -> Lengths:
        """Of N lengths; `limit` is the longest that the base reads, None where that is not known."""
        return cls(
            unit=unit,
            of=len(values_N),
            mean=round(float(values_N.mean()), 1),
            median=float(np.median(values_N)),
            p95=float(np.percentile(values_N, 95)),
            longest=int(values_N.max()),
            max_length=limit,
            cut=None if limit is None else float((values_N > limit).mean()),
        )


class CorpusUse(BaseModel):
    """Of a BEIR folder: distinct passages, those that answer no question, questions, those with several answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passages: int
    idle: int
    questions: int
    several: int


class DataReport(BaseModel):
    """What `embtune data check` shows and a run's data/report.json holds.

    Attributes:
        config, seed: what the rows were read and split with.
        rows: rows of the source. `dropped` and the rows that could not be read are among them.
        dropped: rule -> rows that it took.
        kept: part -> rows. `concepts` and `passages`: part -> how many distinct ones.
        negatives: of the training row that brings the most; None: not counted.
        concept_sizes: rows of a concept: smallest, median, largest.
        domains: domain -> part -> concepts.
        languages: of a sample of passages, language -> share.
        lengths: anchor and positive.
        corpus: what a BEIR folder's judgements leave of its corpus; None: another source.
        shared: what became of passages and concepts in several parts.
        unseen: what of the test part is neither in training nor in dev: its concepts, or its questions alone.
        findings: most severe first.
        unusable: why the data cannot be used; None: it can.
        content_hash: of the prepared parts; empty when nothing was written.
        judged: whether relevance is what the source's qrels say (a BEIR folder); None: a run of a version that did not
            write corpus.jsonl.
        pool_depth: dev evaluations search a pool of so many passages for each question; None: the whole corpus.
    """

    model_config = ConfigDict(extra="forbid")

    config: DataConfig
    seed: int
    rows: int
    dropped: dict[str, int] = {}
    kept: dict[str, int] = {}
    concepts: dict[str, int] = {}
    passages: dict[str, int] = {}
    negatives: int | None = None
    concept_sizes: dict[str, float] = {}
    domains: dict[str, dict[str, int]] = {}
    languages: dict[str, float] = {}
    lengths: dict[str, Lengths] = {}
    corpus: CorpusUse | None = None
    shared: Literal["keep", "leave_out"] = "leave_out"
    unseen: Unseen = "concepts"
    findings: list[Finding] = []
    unusable: str | None = None
    content_hash: str = ""
    judged: bool | None = None
    pool_depth: int | None = None
