"""Several trials of one base as one model: their merged weights averaged.

W = W0 + strength * sum_i w_i (W_i - W0), in float32, where W_i are the weights that trial i runs with:

    lora    W0 + s B A, where s is alpha / r, or alpha / sqrt(r) with rsLoRA
    dora    m (W0 + s B A) / |W0 + s B A|, with the norm of each output row (arXiv 2402.09353)
    full    every weight of the checkpoint's file
    none    W0

Of a classifier W0's head is the one that every trial of a seed begins with; W_i's is in the checkpoint's own file.

Because merged weights are averaged, and not A and B, ranks, targets, layers and methods mix. Averaging fine-tunings of
one base: arXiv 2203.05482; strength, between the base and its fine-tuning: arXiv 2311.13534.

A weight is read, mixed and checked a slice at a time, the base's from its file, and weights that no member changes stay
the base's own pages: in memory are the mixed weights and a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from evaluation.errors import InputError
from evaluation.files import read_json
from trainables.bases.families import resolve_base
from trainables.config import ClassifierConfig, TrialConfig
from trainables.model.build import build_model
from trainables.model.classifier import build_classifier
from trainables.model.heads import head_names
from trainables.model.loaded import files_of, transformer_of
from trainables.model.precision import resolve_device
from trainables.training.checkpoint import PREFIX, SLICE
from trainables.training.rungs import ADAPTER, HEAD, WEIGHTS

ADAPTER_CONFIG = "adapter_config.json"
ENCODER = "0.model."  # of the encoder's weights in the names of a SentenceTransformer's
ALIKE = ("base", "revision", "trust_remote_code")  # fields that members share, beside what their base resolves to
HEADS = ("labels", "seed")  # fields that classifiers share besides: their heads began alike and mean the same
RESOLVED = ("pooling", "query_prompt", "passage_prompt")


@dataclass(frozen=True)
class Member:
    """A trained trial of a mix.

    Attributes:
        config: the trial's.
        checkpoint: folder of its weights; not read with method none.
        weight: share in the average.
    """

    config: TrialConfig
    checkpoint: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Mix:
    """Trials of one base, averaged, and how far from the base the average goes.

    Attributes:
        members: at least one; their weights sum to one. The first one's maximum length is the mix's.
        strength: 0 is the base, 1 the average; beyond 1 the way goes on.

    Raises:
        InputError: no members, weights that do not sum to one, a negative or infinite number.
    """

    members: tuple[Member, ...]
    strength: float = 1.0

    def __post_init__(self) -> None:
        weights = [member.weight for member in self.members]
        if not weights:
            raise InputError("mix: no members, expected at least one")
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or abs(math.fsum(weights) - 1) > 1e-6:
            raise InputError(f"mix: weights {weights}, expected numbers from 0 that sum to 1")
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise InputError(f"mix: strength {self.strength}, expected a number from 0")

    @classmethod
    def of(cls, config: TrialConfig, checkpoint: Path, strength: float = 1.0) -> Mix:
        """A single trial."""
        return cls((Member(config, checkpoint),), strength)

    @classmethod
    def uniform(cls, trials: Sequence[tuple[TrialConfig, Path]], strength: float = 1.0) -> Mix:
        """Trials with equal weights."""
        return cls(tuple(Member(config, path, 1 / len(trials)) for config, path in trials), strength)

    @property
    def config(self) -> TrialConfig:
        """What the mix is built from: the first member's base, prompts, pooling and maximum length, nothing trained."""
        return self.members[0].config.model_copy(update={"method": "none"})


def mixed_model(mix: Mix, device: str | torch.device | None = None) -> SentenceTransformer:
    """The mix as a plain model on `device` (None: the first GPU, else the CPU), in float32, to be read and not written:
    weights that no member changes are shared with the process's other models of the base.

    Raises:
        InputError: members of several bases, poolings or prompts; weights that are missing, unreadable, of another
            base, or not finite.
    """
    _check_alike(mix)
    model = build_model(mix.config, "cpu", dtype=torch.float32)
    _mix_into(model, mix)
    return model.to(resolve_device(device)).eval()


def mixed_classifier(mix: Mix, device: str | torch.device | None = None) -> CrossEncoder:
    """As mixed_model, of trials that classify: the heads are averaged too.

    Raises:
        InputError: as mixed_model; members of several labels or seeds, whose heads did not begin alike.
    """
    _check_alike(mix)
    config = mix.config
    assert isinstance(config, ClassifierConfig)
    model = build_classifier(config, "cpu", dtype=torch.float32)
    _mix_into(model, mix)
    return model.to(resolve_device(device)).eval()


def _mix_into(model: SentenceTransformer | CrossEncoder, mix: Mix) -> None:
    updates, files = _updates(model, mix), files_of(model)
    for name, parameter in model.named_parameters():
        touching = [(amount, update) for amount, update in updates if update.changes(name)]
        if touching:
            parameter.data = _mixed(name, parameter.data, files.get(name), touching)


def check_mix(mix: Mix) -> None:
    """Read what would be mixed, and mix nothing.

    Raises:
        InputError: as `mixed_model`, NaN and infinity apart.
    """
    _check_alike(mix)
    _updates(build_model(mix.config, "cpu", dtype=torch.float32), mix)


def _updates(model: Any, mix: Mix) -> list[tuple[float, _Update]]:
    """How much of which member is mixed into the base."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    trained = [member for member in mix.members if member.config.method != "none"]
    updates: list[tuple[float, _Update]] = []
    for member in trained:
        amount = mix.strength * member.weight
        updates.append((amount, _read(member, shapes)))
        if isinstance(member.config, ClassifierConfig) and member.config.method == "lora":
            names = {ENCODER + name for name in head_names(transformer_of(model))}
            updates.append((amount, _Head(member.checkpoint / HEAD, {name: shapes[name] for name in names})))
    return updates


class _Update(Protocol):
    """What a trial makes of the base's weights."""

    replaces: bool  # its weights stand for themselves; else they are added to the base's

    def changes(self, name: str) -> bool: ...

    def rows(self, name: str, base: torch.Tensor, rows: slice) -> torch.Tensor:
        """Rows of the weight, or what is added to these rows of the base's, `base`."""
        ...


def _mixed(
    name: str, base: torch.Tensor, file: tuple[Path, str] | None, updates: Sequence[tuple[float, _Update]]
) -> torch.Tensor:
    """(1 - sum of a_i over what replaces) W0 + sum of a_i W_i or a_i (W_i - W0): a trial alone stays exactly itself.

    Args:
        base: W0.
        file: that W0 is the pages of, and its name there; None: it is in memory.
    """
    kept = 1 - math.fsum(amount for amount, update in updates if update.replaces)
    kept = kept if abs(kept) > 1e-12 else 0.0
    mixed = torch.empty_like(base)
    step = max(1, SLICE // max(1, base[:1].numel())) if base.dim() else 1
    for start in range(0, len(base) if base.dim() else 1, step):
        rows = slice(start, start + step)
        own = _rows(*file, rows) if file else base[rows] if base.dim() else base
        part = own * kept if kept else torch.zeros_like(own)
        for amount, update in updates:
            part.add_(update.rows(name, own, rows), alpha=amount)
        if not part.isfinite().all():
            raise InputError(f"mix: {name} holds NaN or infinity, expected finite weights (a trial that diverged?)")
        (mixed[rows] if base.dim() else mixed).copy_(part)
    return mixed


def _rows(file: Path, name: str, rows: slice) -> torch.Tensor:
    """Opened anew: the pages of a file that stays open count as this process's memory, all that were ever read."""
    with safe_open(file, framework="pt") as tensors:
        part = tensors.get_slice(name)
        return part[rows] if part.get_shape() else tensors.get_tensor(name)


class _Full:
    """Every weight, from the file of a full fine-tuning."""

    replaces = True

    def __init__(self, file: Path, shapes: dict[str, torch.Size]) -> None:
        self._file = file
        with safe_open(file, framework="pt") as tensors:
            found = {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        wrong = sorted(name for name, shape in shapes.items() if found.get(name) != shape)
        if wrong:
            raise InputError(
                f"{file}: weights of another base: {wrong[0]} is {_shape(found.get(wrong[0]))}, "
                f"expected {_shape(shapes[wrong[0]])}"
            )

    def changes(self, name: str) -> bool:
        return True

    def rows(self, name: str, base: torch.Tensor, rows: slice) -> torch.Tensor:
        return _rows(self._file, name, rows).float()


class _Head(_Full):
    """A classifier's head, from the file beside its adapter."""

    def __init__(self, file: Path, shapes: dict[str, torch.Size]) -> None:
        if not file.is_file():
            raise InputError(f"{file}: no such file, expected the head of a trained classifier")
        self._names = set(shapes)
        super().__init__(file, {name.removeprefix(ENCODER): shape for name, shape in shapes.items()})

    def changes(self, name: str) -> bool:
        return name in self._names

    def rows(self, name: str, base: torch.Tensor, rows: slice) -> torch.Tensor:
        return super().rows(name.removeprefix(ENCODER), base, rows)


class _Adapter:
    """A LoRA or DoRA adapter in PEFT's format."""

    replaces = False

    def __init__(self, member: Member, shapes: dict[str, torch.Size]) -> None:
        config, file = member.config, member.checkpoint / ADAPTER
        _check_stated(config, member.checkpoint / ADAPTER_CONFIG)
        self._scale = config.alpha / (math.sqrt(config.r) if config.rslora else config.r)
        self._parts: dict[str, dict[str, torch.Tensor]] = {}
        kinds = {".lora_A.weight", ".lora_B.weight"} | ({".lora_magnitude_vector"} if config.dora else set())
        for name, tensor in load_file(file).items():
            kind = next((kind for kind in kinds if name.endswith(kind)), "")
            target = ENCODER + name.removeprefix(PREFIX).removesuffix(kind) + ".weight"
            if not kind or target not in shapes:
                raise InputError(f"{file}: {name} is no weight of an adapter of {config.base}")
            self._parts.setdefault(target, {})[kind] = tensor.float()
        for target, parts in self._parts.items():
            out, into = shapes[target]
            expected: dict[str, tuple[int, ...]] = {
                ".lora_A.weight": (config.r, into),
                ".lora_B.weight": (out, config.r),
            }
            expected |= {".lora_magnitude_vector": (out,)} if config.dora else {}
            found = {kind: tuple(tensor.shape) for kind, tensor in parts.items()}
            if found != expected:
                raise InputError(f"{file}: {target}: the adapter's shapes are {found}, {config.base} needs {expected}")
        if not self._parts:
            raise InputError(f"{file}: holds no weights, expected an adapter of {config.base}")

    def changes(self, name: str) -> bool:
        return name in self._parts

    def rows(self, name: str, base: torch.Tensor, rows: slice) -> torch.Tensor:
        parts = self._parts[name]
        change = (parts[".lora_B.weight"][rows] @ parts[".lora_A.weight"]).mul_(self._scale)
        magnitude = parts.get(".lora_magnitude_vector")
        if magnitude is None:
            return change
        tuned = change.add_(base)
        return tuned.mul_((magnitude[rows] / tuned.norm(dim=1)).unsqueeze(1)).sub_(base)


def _read(member: Member, shapes: dict[str, torch.Size]) -> _Update:
    file = member.checkpoint / (ADAPTER if member.config.method == "lora" else WEIGHTS)
    try:
        return _Adapter(member, shapes) if member.config.method == "lora" else _Full(file, shapes)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file, expected the weights of a trained trial") from None
    except SafetensorError as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from None


def _check_alike(mix: Mix) -> None:
    first, *others = mix.members
    for field in (*ALIKE, *(HEADS if isinstance(first.config, ClassifierConfig) else ())):
        for other in others:
            _same(field, getattr(first.config, field), getattr(other.config, field))
    if others:
        base = resolve_base(first.config)
        for field in RESOLVED:
            for other in others:
                _same(field, getattr(base, field), getattr(resolve_base(other.config), field))


def _same(field: str, one: Any, other: Any) -> None:
    if one != other:
        raise InputError(f"mix: {field} differs: {one!r} and {other!r}; expected members of one base, read alike")


def _check_stated(config: TrialConfig, file: Path) -> None:
    """What the adapter's own file says of it against the trial's configuration."""
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected the configuration of an adapter")
    stated = read_json(file)
    expected = {"base_model_name_or_path": config.base, "r": config.r, "lora_alpha": config.alpha}
    expected |= {"use_rslora": config.rslora, "use_dora": config.dora}
    for key, value in expected.items():
        if stated.get(key) != value:
            raise InputError(
                f"{file}: {key} is {stated.get(key)!r}, expected {value!r}: an adapter of another trial or base"
            )
    if stated.get("rank_pattern") or stated.get("alpha_pattern"):
        raise InputError(f"{file}: ranks or scales differ between layers, expected the same in all")


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
