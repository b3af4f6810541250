"""What is known of a base and what a trial of it needs, for people: nothing is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evaluation.errors import InputError
from trainables.bases.architectures import LAYOUTS
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.bases.known import FAMILIES, Family, find_family
from trainables.bases.own_files import OwnFiles
from trainables.config import TrialConfig
from trainables.model.adapters import modules_by_role
from trainables.plan.memory import estimate_memory
from trainables.plan.parameters import count_parameters, meta_model
from trainables.targets import ROLES

TRIAL = {"targets": "qv", "r": 16, "batch_size": 32}  # what the memory of a trial is said for
TOKENS = 256


@dataclass(frozen=True)
class BaseFacts:
    """One base.

    Attributes:
        parameters: of encoder and Dense modules; None: it runs code of its own that is out of reach.
        published: as its authors or the hub say; None: not known.
        dimensions: of an embedding.
        targets: role -> names of its modules, layer numbers folded to *.
        memory: bytes that a trial needs (LoRA on q and v, rank 16, 32 pairs of 256 tokens, bf16 on a GPU); None: as
            parameters, or its own code does not say its sizes.
        fp16: its activations stay within fp16's largest number.
        sources: fact -> where it comes from.
    """

    name: str
    family: str
    architecture: str
    parameters: int | None
    published: int | None
    dimensions: int | None
    licence: str | None
    languages: str | None
    gated: bool
    query_prompt: str
    passage_prompt: str
    prompts: dict[str, str]
    pooling: str
    padding: str
    max_length: int
    dense: tuple[int, ...]
    fp16: bool
    targets: dict[str, list[str]]
    memory: int | None
    sources: dict[str, str]
    conflicts: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def known_bases() -> list[BaseFacts]:
    """Every known base, from its family alone: no file is looked for."""
    return [_facts(TrialConfig(base=family.base), OwnFiles.unread()) for family in FAMILIES]


def base_facts(name: str) -> BaseFacts:
    """A base by its hub id, folder or family's name, with what its own files say where they are in reach.

    Raises:
        InputError: nothing is known of it, or it cannot be adapted.
    """
    family = next((family for family in FAMILIES if name.lower() == family.name), None)
    return _facts(TrialConfig(base=family.base if family else name), None)


def _facts(config: TrialConfig, own: OwnFiles | None) -> BaseFacts:
    base = resolve_base(config, own)
    family: Family | None = find_family(base.name)
    notes = list(base.notes)
    try:
        model = meta_model(base)
        parameters = count_parameters(config.model_copy(update={"method": "none"}), base).total
        roles = modules_by_role(model)
        targets: dict[str, list[str]] = {role: roles[role] for role in ("qkv", *ROLES) if role in roles}
        if other := roles.get(None):
            targets["all-linear alone"] = other
        hidden = getattr(model.config, "hidden_size", None)
    except InputError as error:
        if not base.foreign:
            raise
        notes.append(str(error))
        parameters, targets, hidden = None, {}, None
    layout = LAYOUTS.get(base.model_type)
    return BaseFacts(
        name=base.name,
        family=base.family,
        architecture=base.model_type,
        parameters=parameters,
        published=family.published if family else None,
        dimensions=base.dense[-1].outputs if base.dense else hidden,
        licence=family.licence if family else None,
        languages=family.languages if family else None,
        gated=family.gated if family else False,
        query_prompt=base.query_prompt,
        passage_prompt=base.passage_prompt,
        prompts=base.prompts,
        pooling=base.pooling,
        padding=base.padding,
        max_length=base.max_length,
        dense=tuple(module.outputs for module in base.dense),
        fp16=layout is None or layout.fp16,
        targets=targets,
        memory=_memory(config, base),
        sources=base.sources,
        conflicts=base.conflicts,
        notes=tuple(notes),
    )


def _memory(config: TrialConfig, base: ResolvedBase) -> int | None:
    trial = config.model_copy(update=TRIAL)
    try:
        return estimate_memory(trial, "cuda", "bf16", "sdpa", base, longest=TOKENS).total
    except InputError:  # no q and v of their own, or code that is out of reach: the other facts stand
        return None
