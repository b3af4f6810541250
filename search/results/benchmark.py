"""What `benchmark.json` holds: base and best model on the test part. Written and read here, nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from typing import Protocol as Structural

from pydantic import TypeAdapter, ValidationError

from evaluation.compare import Comparison, compare
from evaluation.errors import InputError
from evaluation.files import write_whole
from evaluation.retrieval import Scores
from evaluation.task import Protocol, RetrievalTask
from trainables.data.survey import Unseen

UNSEEN = {  # what the data report says of the test part -> what may be claimed of a gain on it
    "concepts": "that neither training nor the search has seen",
    "questions": "whose questions neither training nor the search has seen (their passages and concepts may be known)",
}


@dataclass(frozen=True)
class Part:
    """Base and best under one protocol.

    Attributes:
        queries, passages, concepts: how many.
        left_out: what the task leaves out, in sentences.
        base, best: metric -> mean over the queries.
        comparisons: metric -> best against base, paired, concepts resampled.
    """

    queries: int
    passages: int
    concepts: int
    base: dict[str, float]
    best: dict[str, float]
    comparisons: dict[str, Comparison]
    left_out: tuple[str, ...] = ()  # runs of earlier versions do not say

    @classmethod
    def of(cls, task: RetrievalTask, before: Scores, after: Scores, metrics: Sequence[str]) -> Part:
        """Compare two models' scores on one task."""
        return cls(
            queries=len(task.queries),
            passages=len(task.corpus),
            concepts=len(set(task.groups.values())),
            base=before.means,
            best=after.means,
            comparisons={metric: compare(before, after, metric) for metric in metrics},
            left_out=tuple(task.left_out),
        )


@dataclass(frozen=True)
class DevAndTest:
    """One model's score on the part that chose and on the part that judges.

    The base was chosen on neither, so its difference says how much harder the test part is.
    """

    dev: float
    test: float

    @property
    def difference(self) -> float:
        """Dev minus test."""
        return self.dev - self.test


@dataclass(frozen=True)
class Optimism:
    """How much of the winner's dev score was luck of the choice, beside the base, on which nothing was chosen."""

    best: DevAndTest
    base: DevAndTest


@dataclass(frozen=True)
class DevPool:
    """How the winner's dev score in the pool, which chose it, compares with the one on the whole corpus.

    Attributes:
        passages, of: of the pool, and of the corpus.
        pooled, whole: the searched metric on either.
    """

    passages: int
    of: int
    pooled: float
    whole: float


@dataclass(frozen=True)
class Share:
    """A trial in a candidate.

    Attributes:
        trial: its number.
        checkpoint: name of the folder in the trial's that holds its weights.
        weight: share in the average.
    """

    trial: int
    checkpoint: str
    weight: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """A model that could have been exported: a trial, an average of several or of its rungs, or part of the way to one.

    Attributes:
        name: as `embtune export --candidate` takes it.
        members: what is averaged: trials, or rungs of one; of one alone, it.
        strength: 0 is the base, 1 the average.
        dev: the searched metric on the search's dev task, merged and in float32.
        guard: the searched metric on the guard.
        loss: this candidate against its base on the guard.
        dev_gain, guard_gain: this candidate against the best single trial; null for that one, and where dev has a
            single concept.
        same_base: whether its base is the best single trial's.
        old_loss: this candidate against its base on the test part of the run that this one continues; null where it
            continues none, or where that part has a single concept.
    """

    name: str
    members: tuple[Share, ...]
    strength: float
    dev: float
    guard: float
    loss: Comparison
    dev_gain: Comparison | None = None
    guard_gain: Comparison | None = None
    same_base: bool = True
    old_loss: Comparison | None = None

    @property
    def trials(self) -> tuple[int, ...]:
        """The numbers of its trials, each once."""
        return tuple(dict.fromkeys(share.trial for share in self.members))

    @property
    def lost(self) -> float:
        """Base minus candidate on the guard or, where it loses more there, on the earlier run's test part."""
        return -min(c.difference for c in (self.loss, self.old_loss) if c is not None)

    @property
    def lost_on(self) -> str:
        """Where it loses that."""
        old = self.old_loss is not None and self.old_loss.difference < self.loss.difference
        return "the earlier run's test part" if old else "the guard"


@dataclass(frozen=True)
class Guard:
    """What the exported model has forgotten.

    Attributes:
        tolerance: loss that was accepted.
        within: whether the model stays within it.
        reason: why this candidate is exported, in sentences.
        part: base and model on the guard.
    """

    tolerance: float
    within: bool
    reason: str
    part: Part


@dataclass(frozen=True)
class Winner:
    """The model in `best/`.

    Attributes:
        trial: whose weights it has; of an average, those of the first of its trials.
        folder: name in the run's folder.
        reload_cosine: lowest cosine between the reloaded export and the model it came from.
        candidate: its name among the candidates.
    """

    trial: int
    folder: str
    reload_cosine: float
    candidate: str = ""  # runs of earlier versions had none


@dataclass(frozen=True)
class Benchmark:
    """The end of a search.

    Attributes:
        metric: that the search maximised on dev.
        base: hub id or folder.
        best: what was exported.
        protocols: protocol -> its part; without one that the test part has no queries for.
        old_test: the test part of the run that this one continues.
        optimism: null where the search's own protocol has no test queries.
        seconds: phase of the search -> seconds.
        part: of the data that judges.
        unseen: what of the test part neither training nor the search has seen: a key of UNSEEN.
        dev_pool: null where dev evaluations searched the whole corpus.
        candidates: the best single trial, then what else could have been exported.
        guard: null in runs of earlier versions.
    """

    metric: str
    base: str
    best: Winner
    protocols: dict[Protocol, Part]
    old_test: Part | None = None
    optimism: Optimism | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    part: Literal["test"] = "test"
    unseen: Unseen = "concepts"  # runs of earlier versions held whole concepts back
    dev_pool: DevPool | None = None
    candidates: tuple[Candidate, ...] = ()
    guard: Guard | None = None

    def main_protocol(self, wanted: Protocol) -> Protocol | None:
        """The protocol that decides: the search's own where the test part has queries for it; None without any."""
        return wanted if wanted in self.protocols else next(iter(self.protocols), None)

    def write(self, path: Path) -> None:
        """Write the file whole. Differences are written beside what they follow from, for whoever reads it by hand."""
        document: dict[str, Any] = asdict(self)
        if self.optimism is None:
            del document["optimism"]
        else:
            for name in ("best", "base"):
                document["optimism"][name]["difference"] = getattr(self.optimism, name).difference
        for name in ("old_test", "dev_pool", "guard"):
            if document[name] is None:
                del document[name]
        write_whole(path, json.dumps(document, indent=1, ensure_ascii=False))

    def candidate(self, name: str) -> Candidate:
        """A candidate by name.

        Raises:
            InputError: none is called so.
        """
        return candidate_named(self.candidates, name)

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """Read what `write`, or an earlier version, wrote.

        Raises:
            InputError: the file is no benchmark.
        """
        return read_as(_FILE, path, path.read_bytes())


_FILE = TypeAdapter(Benchmark)


class _Named(Structural):
    @property
    def name(self) -> str:
        """Of a candidate."""


N = TypeVar("N", bound=_Named)
B = TypeVar("B")


def candidate_named(candidates: Sequence[N], name: str) -> N:
    """A candidate by name.

    Raises:
        InputError: none is called so.
    """
    found = next((candidate for candidate in candidates if candidate.name == name), None)
    if found is None:
        names = ", ".join(c.name for c in candidates) or "none: the run was made by an earlier version"
        raise InputError(f"--candidate {name}: no such candidate, expected one of {names}")
    return found


def read_as(file: TypeAdapter[B], path: Path, content: bytes) -> B:
    """What a search wrote at its end, to `path`.

    Raises:
        InputError: the file is no benchmark.
    """
    try:
        return file.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: not a benchmark of a search ({where}: {first['msg']})") from None


def phases(times: Sequence[float]) -> dict[str, float]:
    """Seconds of what follows the trials. Args: times: when it began, and when each phase of it ended."""
    names = ("candidates", "merge", "benchmark")
    return {name: round(end - start, 2) for name, start, end in zip(names, times, times[1:], strict=False)}
