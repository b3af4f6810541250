"""What `benchmark.json` of a classification holds: the best model and its baselines on the test part."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from evaluation.classification.outcome import ClassScores
from evaluation.compare import Comparison
from evaluation.files import write_whole
from search.results.benchmark import Benchmark, DevAndTest, Optimism, Share, candidate_named, read_as

Baseline = Literal["majority", "probe"]
BASELINES: dict[Baseline, str] = {
    "majority": "the commonest class, whatever the text",
    "probe": "a linear probe on the frozen base's embeddings",
}


@dataclass(frozen=True)
class LabelCandidate:
    """A model that could have been exported: a trial, or an average of several.

    Attributes:
        name: as `embtune export --candidate` takes it.
        members: the trials that are averaged; of one alone, it.
        dev: the searched metric on dev, merged and in float32.
        dev_gain: against the best single trial; None for that one.
    """

    name: str
    members: tuple[Share, ...]
    dev: float
    dev_gain: Comparison | None = None


@dataclass(frozen=True)
class LabelWinner:
    """The model in `best/`.

    Attributes:
        trial: whose weights it has; of an average, the first of its trials.
        folder: name in the run's folder.
        gap: largest difference of a probability between the reloaded export and the model it came from.
        candidate: its name among the candidates.
    """

    trial: int
    folder: str
    gap: float
    candidate: str


@dataclass(frozen=True)
class ClassifierBenchmark:
    """The end of a classification search.

    Attributes:
        metric: that the search maximised on dev.
        base: hub id or folder.
        best: what was exported.
        reason: why this candidate, in a sentence.
        examples, groups: of the test part.
        baselines: name -> metric -> score on the test part.
        against: the better of them there, which the verdict is against.
        scores: metric -> score of the best model.
        comparisons: metric -> best against that baseline, groups resampled.
        classes: precision, recall, F1 and support of each class, of the best model.
        confusion: rows are labels, columns predictions, in the order of `classes`.
        candidates: the best single trial, then the averages.
        optimism: the winner's and the baseline's score on dev and on test.
        seconds: phase of the search -> seconds.
    """

    metric: str
    base: str
    best: LabelWinner
    reason: str
    examples: int
    groups: int
    baselines: dict[Baseline, dict[str, float]]
    against: Baseline
    scores: dict[str, float]
    comparisons: dict[str, Comparison]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    candidates: tuple[LabelCandidate, ...]
    optimism: Optimism
    seconds: dict[str, float] = field(default_factory=dict)
    task: Literal["classification"] = "classification"

    def write(self, path: Path) -> None:
        """Write the file whole."""
        write_whole(path, json.dumps(asdict(self), indent=1, ensure_ascii=False))

    def candidate(self, name: str) -> LabelCandidate:
        """A candidate by name.

        Raises:
            InputError: none is called so.
        """
        return candidate_named(self.candidates, name)


_FILE = TypeAdapter(ClassifierBenchmark)


def read_end(path: Path) -> Benchmark | ClassifierBenchmark:
    """Read what a search of either task wrote at its end.

    Raises:
        InputError: the file is no benchmark.
    """
    content = path.read_bytes()
    return read_as(_FILE, path, content) if b'"task": "classification"' in content else Benchmark.read(path)


def dev_and_test(best: tuple[float, float], baseline: tuple[float, float]) -> Optimism:
    """Of (dev, test) scores of the winner and of the baseline that it is held against."""
    return Optimism(best=DevAndTest(*best), base=DevAndTest(*baseline))
