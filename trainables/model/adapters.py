"""LoRA targets by meaning: q, k, v, o and ffn resolved to the modules of each architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from peft import LoraConfig, TaskType
from transformers import PreTrainedModel

from evaluation.errors import InputError
from trainables.bases.architectures import role_of
from trainables.config import TrialConfig
from trainables.targets import Role, parse_targets

_LAYER = r"(.*?\.\d+)\."  # up to the number of the layer


def resolve_targets(model: PreTrainedModel, targets: str, last_n: int | None = None) -> list[str]:
    """Full names of the linear modules that `targets` means in `model` (real or on the meta device).

    Where query, key and value are one projection, each of the three means it. The pooler is never among them: mean, CLS
    and last-token pooling read the hidden states, so it gets no gradient.

    Args:
        last_n: only the last n layers; None: all.

    Raises:
        InputError: a target matches nothing or is missing from some of the layers. It names the linear modules that
            exist.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    layers = _by_layer(model, linears)
    if last_n is not None:
        _check_last_n(last_n, len(layers), model)
    kept = layers if last_n is None else layers[-last_n:]
    if targets == "all-linear":  # also where projections are fused or have names that we do not know
        return [name for layer in kept for name, _ in layer]
    names: list[str] = []
    for role in parse_targets(targets):
        meant = {role, "qkv"} if role in ("q", "k", "v") else {role}
        matched = [[name for name, module_role in layer if module_role in meant] for layer in kept]
        if not all(matched):
            missing = f"matches nothing in {sum(not m for m in matched)} of {len(kept)} layers"
            raise InputError(
                f"targets: {role} {missing} of {type(model).__name__}; its linear modules are {_kinds(linears)}; "
                "expected a target that it has, or all-linear"
            )
        names += [name for layer_names in matched for name in layer_names]
    order = {name: position for position, name in enumerate(linears)}
    return sorted(set(names), key=order.__getitem__)


def modules_by_role(model: PreTrainedModel) -> dict[Role | None, list[str]]:
    """What a role is called in the layers of `model`, layer numbers folded to *; under None what has no known role."""
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    found: dict[Role | None, list[str]] = {}
    for layer in _by_layer(model, linears):
        for name, role in layer:
            kind = re.sub(r"\.\d+\.", ".*.", name)
            if kind not in found.setdefault(role, []):
                found[role].append(kind)
    return found


def lora_config(config: TrialConfig, model: PreTrainedModel) -> LoraConfig:
    """PEFT's configuration of a trial's adapter on `model`."""
    return LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT only divides it by r or its root
        lora_dropout=config.dropout,
        bias="none",
        use_rslora=config.rslora,
        use_dora=config.dora,
        # One exact pattern rather than suffixes: the suffix output.dense would also take attention.output.dense.
        target_modules=_pattern(resolve_targets(model, config.targets, config.last_n)),
    )


def trained_names(model: PreTrainedModel, last_n: int | None = None) -> list[str]:
    """Names of the parameters that full fine-tuning trains: all, or those of the last n layers; never the pooler.

    Raises:
        InputError: the model has fewer than n layers.
    """
    names = [name for name, _ in model.named_parameters() if not name.startswith("pooler.")]
    if last_n is None:
        return names
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    layers = list(dict.fromkeys(match[1] for name in linears if (match := re.match(_LAYER, name))))
    _check_last_n(last_n, len(layers), model)
    kept = tuple(f"{layer}." for layer in layers[-last_n:])
    return [name for name in names if name.startswith(kept)]


def _check_last_n(last_n: int, layers: int, model: PreTrainedModel) -> None:
    if last_n > layers:
        raise InputError(f"last_n: {last_n} is more than the {layers} layers of {type(model).__name__}")


def _by_layer(model: PreTrainedModel, linears: list[str]) -> list[list[tuple[str, Role | None]]]:
    """The linear modules of each layer, with their role where it is known."""
    layers: dict[str, list[tuple[str, Role | None]]] = {}
    for name in linears:
        if match := re.match(_LAYER, name):
            role = role_of(model.config.model_type, name[match.end() :])
            layers.setdefault(match[1], []).append((name, role))
    return list(layers.values())


def _kinds(linears: Iterable[str]) -> str:
    """Names of linear modules with layer numbers folded to *."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in linears))


def _pattern(names: list[str]) -> str:
    """A regular expression that matches exactly these names; layers of one kind are folded together."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if match := re.match(_LAYER, name):
            before, _, number = match[1].rpartition(".")
            kinds.setdefault((before, name[match.end() :]), []).append(number)
    return "|".join(
        rf"{re.escape(before)}\.({'|'.join(numbers)})\.{re.escape(after)}" for (before, after), numbers in kinds.items()
    )
