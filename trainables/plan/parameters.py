"""Parameter counts on torch's meta device: every module of a base, no weights."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from evaluation.errors import InputError
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.bases.foreign import foreign_model
from trainables.config import ClassifierConfig, TrialConfig
from trainables.model.adapters import resolve_targets, trained_names
from trainables.model.heads import head_names, trained_head


@dataclass(frozen=True)
class Counts:
    """Parameters of a trial's model.

    total includes the pooler, Dense modules and the adapter, as PEFT counts them, and, of a classifier's head as
    published, the copy that PEFT keeps of what it trains beside an adapter.
    """

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


def meta_model(base: ResolvedBase, classes: int = 0) -> PreTrainedModel:
    """The base's encoder on torch's meta device: every module, no weights. Do not change it: it is shared.

    Args:
        classes: of the classification head on it; 0: none.

    Raises:
        InputError: the figures are not those of an architecture that transformers has, or its own code fails.
    """
    if base.foreign:
        if (base.name, base.revision) not in _FOREIGN:
            _FOREIGN[base.name, base.revision] = foreign_model(base)
        return _FOREIGN[base.name, base.revision]
    return _meta_model(json.dumps(base.figures, sort_keys=True, default=str), base.name, classes)


def count_parameters(config: TrialConfig, base: ResolvedBase | None = None) -> Counts:
    """Trainable and total parameters of a trial, without weights.

    Raises:
        InputError: an unknown base, or targets that match nothing.
    """
    base = base or resolve_base(config)
    if isinstance(config, ClassifierConfig):
        return _count_classifier(config, meta_model(base, max(2, len(config.labels))))
    model = meta_model(base)
    dense = sum(module.parameters for module in base.dense)
    total = sum(parameter.numel() for parameter in model.parameters()) + dense
    if config.method == "none":
        return Counts(0, total)
    if config.method == "full":
        parameters = dict(model.named_parameters())
        return Counts(sum(parameters[name].numel() for name in trained_names(model, config.last_n)) + dense, total)
    adapter = _adapter(config, model)
    return Counts(adapter, total + adapter)


def _count_classifier(config: ClassifierConfig, model: PreTrainedModel) -> Counts:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes.values())
    if config.method == "full":
        body = trained_names(model, config.last_n) if config.last_n is not None else list(sizes)
        return Counts(sum(sizes[name] for name in {*body, *head_names(model)}), total)
    head = sum(sizes[name] for name in trained_head(model, config))
    adapter = _adapter(config, model)
    return Counts(adapter + head, total + adapter + (head if config.head == "as_published" else 0))


def _adapter(config: TrialConfig, model: PreTrainedModel) -> int:
    parameters = 0
    for linear in adapted(config, model):
        # A is r x in, B is out x r; DoRA adds a magnitude for each output.
        parameters += config.r * (linear.in_features + linear.out_features) + config.dora * linear.out_features
    return parameters


def adapted(config: TrialConfig, model: PreTrainedModel) -> list[torch.nn.Linear]:
    """The linear modules that a trial's adapter is put on.

    Raises:
        InputError: targets that match nothing.
    """
    return [_linear(model, name) for name in resolve_targets(model, config.targets, config.last_n)]


def _linear(model: PreTrainedModel, name: str) -> torch.nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, torch.nn.Linear):
        raise TypeError(f"{name} is a {type(module).__name__}, expected a linear module")
    return module


_FOREIGN: dict[tuple[str, str | None], PreTrainedModel] = {}


@functools.lru_cache(maxsize=32)
def _meta_model(figures_json: str, name: str, classes: int) -> PreTrainedModel:
    figures: dict[str, Any] = json.loads(figures_json)
    model_type = figures.pop("model_type", None)
    try:
        config = AutoConfig.for_model(model_type, **figures)
        if classes:
            config.num_labels = classes
        with torch.device("meta"):
            return (AutoModelForSequenceClassification if classes else AutoModel).from_config(config)
    except (KeyError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"base: {name}: architecture {model_type!r} is not one of transformers' ({first})") from error
