"""The sections of a spec: what each key is, takes and means.

search/spec/load.py reads them from a file and checks that they fit each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from evaluation.classification.metrics import SEARCHED
from search.paths import RunFolder
from search.spec.space import Space
from trainables.classification.config import LabelledDataConfig
from trainables.config import ClassifierConfig, TrialConfig
from trainables.data.config import DataConfig

METRIC = re.compile(r"(recall|precision|success|mrr|ndcg|map)@[1-9]\d{0,3}")
READ_AS_SPACE = frozenset({"space", "seed", "constraints", "data"})  # fields of a spec; of labelled data the labels


class Section(BaseModel):
    """A part of the spec: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SamplerSpec(Section):
    """Who proposes configurations."""

    name: Literal["tpe", "gp", "random", "grid"] = Field(
        "tpe",
        description="tpe: from what scored well so far; gp: a Gaussian process, for spaces without conditions; "
        "random: at random; grid: each combination of lists once",
    )
    startup: int = Field(
        8, ge=0, description="tpe, gp: trials drawn at random, starting points included, before it models"
    )


class PrunerSpec(Section):
    """Who stops bad trials. Steps are rungs: equal shares of a trial's training.

    A trial can be stopped at any rung but its last. halving and hyperband decide at rungs 1, 2, 4, 8 and so on alone
    (with reduction 3: 1, 3, 9), each time after so many times the training; the others decide at each.
    """

    name: Literal["halving", "hyperband", "median", "percentile", "wilcoxon", "patient", "none"] = Field(
        "halving", description="what the next keys belong to; none: each trial goes to its end"
    )
    reduction: int = Field(2, ge=2, description="halving, hyperband: one in so many goes on at a rung that decides")
    percentile: float = Field(50.0, gt=0, lt=100, description="percentile: share of the trials at a rung that go on")
    startup: int = Field(3, ge=0, description="median, percentile: finished trials before anything is stopped")
    p_value: float = Field(
        0.05, gt=0, lt=1, description="wilcoxon: chance of stopping a trial that is as good as the best at its rung"
    )
    patience: int = Field(1, ge=0, description="patient: rungs without improvement that are forgiven")


class BudgetSpec(Section):
    """When the search ends: whichever comes first."""

    trials: int = Field(20, ge=1, description="trials that are run, pruned and failed ones included")
    hours: float | None = Field(
        None, gt=0, description="wall time after which no trial starts; those that run go to their end"
    )
    device_hours: float | None = Field(
        None, gt=0, description="training and dev evaluation, times the GPUs of a trial (without any: its CPU cores)"
    )
    target: float | None = Field(None, gt=0, le=1, description="dev score that is good enough")
    patience: int | None = Field(None, ge=1, description="finished trials in a row without a better score")


class ResourcesSpec(Section):
    """What one trial takes, and how many run at once."""

    cpus: int = Field(1, ge=1, description="CPU cores of a trial's process, and its torch threads")
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs of a trial's process; a fraction lets several trials share one; null: one where there is one",
    )
    workers: int = Field(
        1, ge=1, description="processes that train one trial together, each on its own GPU; they share out its batches"
    )
    memory_gb: float | None = Field(
        None, gt=0, description="GiB of its device that a trial may take; null: its share of the GPU, no limit on CPUs"
    )
    concurrent: int = Field(0, ge=0, description="trials at once; 0: as many as fit the cluster")
    retries: int = Field(2, ge=0, description="restarts of a trial whose worker died, from its last rung")

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1:
            raise ValueError("a process takes one GPU or a fraction of one; expected at most 1, and workers for more")
        return gpus

    @property
    def device(self) -> str | None:
        """Where its work runs; None: the first GPU. Ray hides no GPU from work that asks for none."""
        return None if self.gpus else "cpu"

    @model_validator(mode="after")
    def _own_gpu_each(self) -> ResourcesSpec:
        if self.workers > 1 and self.gpus not in (None, 0, 1):
            raise ValueError(f"gpus: {self.gpus:g} with {self.workers} workers; expected 1, each on a GPU of its own")
        return self


class StartFromSpec(Section):
    """An earlier run whose best configurations are tried first."""

    run: str = Field(description="its folder")
    top: int = Field(3, ge=1, description="how many of its trials")


class GuardSpec(Section):
    """Questions that nothing is tuned on: what a model loses there against its base, it has forgotten."""

    source: str | None = Field(
        None,
        description="BEIR folder or .jsonl file of pairs, searched over all its passages; null: 405 questions of "
        "general knowledge in French and English that ship with embtune",
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="loss of the metric there that is accepted; a model that loses more is drawn back towards its base",
    )


class Origin(NamedTuple):
    """Where a spec came from: the folder that its relative paths start from, what a run's spec.json records, and the
    folders of the bases that it names by relative paths."""

    folder: Path
    record: dict[str, Any]
    local_bases: tuple[str, ...] = ()


class SearchSpec(Section):
    """One search, complete."""

    name: str = Field("", description="of the run's folder; empty: the file's name")
    seed: int = Field(42, ge=0, description="of everything that is drawn: splits, proposals, batches, dropout")
    task: Literal["retrieval"] = Field(
        "retrieval", description="retrieval: passages for queries; classification has a spec of its own, see below"
    )
    data: DataConfig
    space: dict[str, Any] = Field(description="what a trial's configuration may be, field by field")
    constraints: list[str] = Field(
        default_factory=list, description="between fields that hold numbers, such as r * batch_size <= 1024"
    )
    start: list[dict[str, Any]] = Field(default_factory=list, description="configurations that are tried first")
    continue_from: str | None = Field(
        None, description="folder of an ended run: its best model is the base, its rows come before the new ones"
    )
    start_from: StartFromSpec | None = Field(None, description="an earlier run; its best join `start`")
    metric: str = Field("ndcg@10", description="dev metric that is maximised")
    minimize: Literal["trainable", "eval_s"] | None = Field(
        None,
        description="a second objective: trained parameters, or seconds of a dev evaluation; needs pruner none",
    )
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    pruner: PrunerSpec = Field(default_factory=PrunerSpec)
    budget: BudgetSpec = Field(default_factory=BudgetSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    guard: GuardSpec = Field(default_factory=GuardSpec)
    logging: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        ["tensorboard"],
        description="trackers that get rungs, configurations, benchmark and report; wandb and mlflow need their extras",
    )

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _record: dict[str, Any] = PrivateAttr(default_factory=dict)
    _start_from: StartFromSpec | None = PrivateAttr(default=None)
    _local_bases: tuple[str, ...] = PrivateAttr(default=())
    _parsed_space: Space = PrivateAttr()

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, metric: str) -> str:
        if not METRIC.fullmatch(metric):
            raise ValueError(
                "no such metric; expected recall, precision, success, mrr, ndcg or map with @k, as in ndcg@10"
            )
        return metric

    @property
    def kind(self) -> type[TrialConfig]:
        """What a trial's configuration is."""
        return TrialConfig

    @property
    def folder(self) -> Path:
        """The folder that relative paths of the spec start from."""
        return self._folder

    @property
    def earlier_data(self) -> Path | None:
        """Data folder of the run that this one continues."""
        return None if self.continue_from is None else RunFolder(self.folder / self.continue_from).data

    @property
    def record(self) -> dict[str, Any]:
        """What the run whose spec.json this is recorded: versions, hash of the data, commits. Empty for a YAML file."""
        return self._record

    @property
    def started_from(self) -> StartFromSpec | None:
        """The earlier run whose best configurations are written out in `start`."""
        return self._start_from

    @property
    def local_bases(self) -> tuple[str, ...]:
        """Folders of the bases that the spec names by relative paths."""
        return self._local_bases

    @property
    def parsed_space(self) -> Space:
        """What `space` and `constraints` say, read when the spec was."""
        return self._parsed_space

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; of its space, where that is another.

        Raises:
            InputError: the other space is wrong or impossible.
        """
        other = super().model_copy(update=update, deep=deep)
        if update and not READ_AS_SPACE.isdisjoint(update):
            other._parsed_space = other._space()
        return other

    @model_validator(mode="after")
    def _read_space(self, info: ValidationInfo) -> Self:
        if info.context is not None:
            origin: Origin = info.context
            self._folder, self._record, self._local_bases = origin
        self._parsed_space = self._space()
        return self

    def _space(self) -> Space:
        return Space.parse(self.space, self.seed, self.constraints)


class ClassificationSpec(SearchSpec):
    """One search with task classification: the keys of every search, but `data`, `metric`, `guard` and
    `continue_from`."""

    task: Literal["classification"] = Field(  # type: ignore[assignment]
        "classification", description="labels for texts or for pairs of texts"
    )
    data: LabelledDataConfig  # type: ignore[assignment]
    metric: str = Field("macro_f1", description="dev metric that is maximised")
    guard: GuardSpec = Field(default_factory=GuardSpec, exclude=True)

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, metric: str) -> str:
        if metric not in SEARCHED:
            raise ValueError(f"no such metric of a classification; expected {', '.join(SEARCHED)}")
        return metric

    @field_validator("guard", "continue_from")
    @classmethod
    def _of_retrieval(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            raise ValueError(f"{info.field_name} is for task retrieval alone; expected none")
        return value

    @property
    def kind(self) -> type[TrialConfig]:
        return ClassifierConfig

    def _space(self) -> Space:
        return Space.parse(self.space, self.seed, self.constraints, ClassifierConfig, self.data.labels or ())
