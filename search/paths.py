"""Where everything of a run lies. No other module spells a name of the run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Model = Literal["base", "best"]
STAND_INS = ".stand-ins"  # folder beside the runs: the tiny models of smoke searches
BENCHMARK = "benchmark"  # folder in a run: scores of its benchmark, query by query
BASES = ".bases"  # folder beside the runs: bases that came with a spec to a cluster
MODELS: tuple[Model, ...] = ("base", "best")  # that a benchmark holds against each other


@dataclass(frozen=True)
class RunFolder:
    """The folder of one search, `runs/<name>/`, as it is found: a run that was moved still works.

    Attributes:
        path: the folder; it need not exist.
        url, id: where the run is kept, and which it is, where the folder is this machine's copy of one in a bucket.
    """

    path: Path
    url: str = ""
    id: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def spec(self) -> Path:
        """The resolved spec: every default written out, versions, git commit, seed."""
        return self.path / "spec.json"

    @property
    def data(self) -> Path:
        """Folder of the parts and the data report."""
        return self.path / "data"

    @property
    def guard(self) -> Path:
        """Questions that say what was forgotten, a BEIR folder."""
        return self.path / "guard"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.path / "study.journal"

    @property
    def tune(self) -> Path:
        """Ray Tune's own folder, which holds the trials' folders."""
        return self.path / "tune"

    def trial(self, number: int) -> Path:
        """Folder of a trial's checkpoints."""
        return self.tune / f"trial_{number:04d}"

    def in_trials(self, name: str) -> Iterator[Path]:
        """What is called so in the folders of trials; the name may have parts with stars."""
        return self.tune.glob(f"trial_*/{name}")

    def checkpoint(self, number: int, recorded: str) -> Path:
        """A trial's checkpoint, of which the study recorded the path that it was written to, maybe elsewhere."""
        return self.trial(number) / Path(recorded).name

    @property
    def cache(self) -> Path:
        """What trials share: converted weights, mined negatives, embeddings."""
        return self.path / "cache"

    @property
    def embeddings(self) -> Path:
        """Embeddings of the benchmark, by what decides them."""
        return self.cache / "embeddings"

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard.json"

    @property
    def benchmark(self) -> Path:
        """Written last of a search: its existence means that the search has come to its end."""
        return self.path / "benchmark.json"

    def scores(self, model: Model, part: str) -> Path:
        """Test scores, query by query, of a model under a protocol or on the old test part."""
        return self.path / BENCHMARK / f"{model}-{part}.npz"

    @property
    def best(self) -> Path:
        """The exported model."""
        return self.path / "best"

    def beside_best(self) -> tuple[Path, Path]:
        """Where the next best model is made, and where the last one waits until it is there."""
        return self.path / ".best.new", self.path / ".best.old"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def sizes(self) -> dict[str, int]:
        """Bytes of each folder in it, the largest first; its own files are under "". Files may go meanwhile."""
        sizes: dict[str, int] = {}
        for folder, _, names in os.walk(self.path):
            inner = Path(folder).relative_to(self.path).parts
            name = inner[0] if inner else ""
            for file in names:
                with suppress(FileNotFoundError):
                    sizes[name] = sizes.get(name, 0) + os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH118
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))
