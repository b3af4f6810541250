"""What a base is: prompts, pooling, length, padding and modules, settled from the spec, its own files and its family.

What a model's own files state wins over what we know of its family, and a difference is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from evaluation.errors import InputError
from trainables.bases import hub
from trainables.bases.architectures import LAYOUTS
from trainables.bases.known import DEFAULT_TASK, FAMILIES, Family, find_family, left_out
from trainables.bases.own_files import Dense, OwnFiles
from trainables.config import TrialConfig

# Instruct prompts: what stands before the task, the task, and what follows it.
INSTRUCT_PROMPTS = (r"(Instruct: )(.*)(\nQuery: ?)", r"(task: )(.*)( \| query: )")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # what mixtures of experts call their number


@dataclass(frozen=True)
class ResolvedBase:
    """The facts that decide how a base is prompted, pooled and truncated, each with its source.

    Attributes:
        pooling: sentence-transformers' pooling mode; modes joined by + when the model concatenates several.
        max_length: tokens, prompt and special tokens included.
        padding: left or right, the side on which its tokenizer pads.
        dense: modules between pooling and embedding.
        prompts: name -> text of all that its own files state.
        packaged: the model brings sentence-transformers' modules.json.
        figures: values of transformers' configuration.
        sources: fact -> where it comes from.
        conflicts: one line for each fact on which two sources differ.
        foreign: it runs code of its own (trusted by the spec), of which transformers knows neither the modules nor
            what their figures mean.
    """

    name: str
    revision: str | None
    family: str
    model_type: str
    query_prompt: str
    passage_prompt: str
    pooling: str
    max_length: int
    padding: str
    packaged: bool
    figures: dict[str, Any]
    dense: tuple[Dense, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    foreign: bool = False


def resolve_base(config: TrialConfig, own: OwnFiles | None = None) -> ResolvedBase:
    """Settle prompts, pooling, maximum length and padding of the trial's base: spec, then its own files, then its
    family.

    Reads small JSON files only, never weights; with no network and no cache the family's facts stand.

    Args:
        own: what its files state; None: they are read.

    Raises:
        InputError: nothing is known of the base, it cannot be adapted, or max_length is beyond its positions.
    """
    base, revision = config.base, config.revision
    if why := left_out(base):
        raise InputError(f"base: {base} {why}")
    family, own = find_family(base), own or OwnFiles.read(base, revision)
    figures: dict[str, Any] | None = own.figures or (family.figures if family else None)
    if figures is None:
        raise InputError(
            f"base: nothing is known of {base}: no local folder, not in the cache, not reachable on the hub, "
            f"and not one of the families {', '.join(f.name for f in FAMILIES)}; the demo's is {hub.DEMO_BASE}"
        )
    own_code = not {"AutoConfig", "AutoModel"}.isdisjoint(figures.get("auto_map") or {})
    foreign = config.trust_remote_code and own_code
    if not foreign:
        _check_class(base, figures, own_code, family)
    facts = _Facts(base, family)
    _settle_prompts(facts, config, own, family)
    facts.settle("pooling", config.pooling, own.pooling, family.pooling if family else None, "mean")
    facts.settle("padding", None, own.padding, family.padding if family else None, "right")
    usable = usable_positions(figures)
    own_length = min(own.max_length, usable) if own.max_length and usable else own.max_length
    known_length = family.max_length if family else None
    facts.settle("max_length", config.max_length, own_length, known_length, usable or 512)
    max_length = int(facts.values["max_length"])
    if usable is not None and max_length > usable:
        raise InputError(f"max_length: {max_length} is more than the {usable} tokens that {base} has positions for")
    if family and family.twin and own.figures is None and base.lower() != family.twin.lower():
        facts.notes.append(f"{base}: its files run code of their own; {family.twin} is the same model without")
    return ResolvedBase(
        name=base,
        revision=revision,
        family=family.name if family else "generic",
        model_type=figures["model_type"],
        query_prompt=facts.values["query_prompt"],
        passage_prompt=facts.values["passage_prompt"],
        pooling=facts.values["pooling"],
        max_length=max_length,
        padding=facts.values["padding"],
        packaged=own.packaged,
        figures=figures,
        dense=own.dense or () if own.figures else _known_dense(family),
        prompts=own.prompts,
        sources=facts.sources,
        conflicts=tuple(facts.conflicts),
        notes=tuple(facts.notes),
        foreign=foreign,
    )


def usable_positions(figures: dict[str, Any]) -> int | None:
    """Tokens that the position embeddings have room for; None when the configuration does not say."""
    layout = LAYOUTS.get(figures.get("model_type", ""))
    positions = figures.get("max_position_embeddings")
    return None if not positions or positions < 0 else positions - (layout.position_offset if layout else 0)


def with_task(prompt: str, task: str) -> str | None:
    """An instruct prompt with another task in it; None: the prompt has no place for one."""
    for pattern in INSTRUCT_PROMPTS:
        if match := re.fullmatch(pattern, prompt, re.DOTALL):
            return match[1] + task + match[3]
    return None


def _check_class(base: str, figures: dict[str, Any], own_code: bool, family: Family | None) -> None:
    """Check that transformers has the architecture, with all of its parts.

    Raises:
        InputError: it has not; what to do.
    """
    model_type = figures.get("model_type")
    experts = next((key for key in EXPERTS if (figures.get(key) or 0) > 1), None)
    if figures.get("lora_adaptations"):
        raise InputError(f"base: {base} brings adapters of its own, expected a model without")
    if model_type in LAYOUTS and experts is None:
        return
    import transformers

    if model_type not in transformers.CONFIG_MAPPING:
        if own_code:
            twin = f", or {family.twin}, the same model without" if family and family.twin else ""
            raise InputError(
                f"base: {base} runs code of its own ({model_type}); expected trust_remote_code: true for it{twin}"
            )
        raise InputError(
            f"base: {base}: architecture {model_type!r} is not one of transformers {transformers.__version__}; "
            f"expected one that it has, such as {', '.join(LAYOUTS)}"
        )
    if experts is not None:
        known: Any = transformers.CONFIG_MAPPING[str(model_type)]
        if not hasattr(known, experts) and experts not in known.attribute_map:
            raise InputError(
                f"base: {base} is a mixture of {figures[experts]} experts, and transformers' {model_type} has none: "
                "half of it would be random numbers; expected another base"
            )


def _settle_prompts(facts: _Facts, config: TrialConfig, own: OwnFiles, family: Family | None) -> None:
    """Settle the prompts of queries and passages; the spec may give a text or name one of the model's own."""
    name = family.query_name if family else "query"
    task = config.task or (family.task if family else DEFAULT_TASK)
    known = family.query_prompt.replace("{task}", task) if family else None
    named = ({name: known} if known else {}) | own.prompts
    asked, stated = config.query_prompt, own.query(name)
    if asked is not None and asked in named:
        asked = stated = named[asked]
    given = asked is not None and asked != stated  # a text of the spec's own: it stands as it is
    if config.task is not None and not given:
        asked, stated = (with_task(text, task) or text if text is not None else None for text in (asked, stated))
    facts.settle("query_prompt", asked, stated, known, "")
    prompt = facts.values["query_prompt"]
    if config.task is not None and not given and with_task(prompt, task) == prompt:
        facts.sources["query_prompt"] += ", with the spec's task"
    if config.task is not None and not given and with_task(prompt, task) != prompt:
        facts.notes.append(f"{config.base}: task is not used, the query prompt {prompt!r} has no place for it")
    if config.task is None and config.query_prompt is None and with_task(prompt, DEFAULT_TASK) == prompt:
        facts.notes.append(f"{config.base}: no task in the spec, the query prompt says {DEFAULT_TASK!r}")

    asked, stated = config.passage_prompt, own.passage(name)
    if asked is not None and asked in named:
        asked = stated = named[asked]
    facts.settle("passage_prompt", asked, stated, family.passage_prompt if family else None, "")
    if own.prompts and family is None and own.query() is None and own.passage() is None and any(own.prompts.values()):
        facts.notes.append(
            f"{config.base}: no prompt is called query; query_prompt can name one of " + ", ".join(own.prompts)
        )


def _known_dense(family: Family | None) -> tuple[Dense, ...]:
    if family is None or not family.dense:
        return ()
    sizes = (family.figures["hidden_size"], *family.dense)
    return tuple(Dense(inputs, outputs) for inputs, outputs in pairwise(sizes))


class _Facts:
    """Values settled one by one, with their sources and the conflicts met."""

    def __init__(self, base: str, family: Family | None) -> None:
        self.base, self.family = base, family
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.conflicts: list[str] = []
        self.notes: list[str] = []

    def settle(self, fact: str, spec: Any, own: Any, known: Any, default: Any) -> None:
        """Take the first of spec, own files, family, default; report where the own files and another differ."""
        candidates = [
            (spec, "the spec"),
            (own, "the model's own files"),
            (known, self.family.source if self.family else ""),
            (default, "the default"),
        ]
        value, source = next((value, source) for value, source in candidates if value is not None)
        self.values[fact], self.sources[fact] = value, source
        shorter = fact == "max_length" and own is not None and value < own  # a choice that costs nothing
        if own is not None and value != own and not shorter:
            self.conflicts.append(f"{self.base}: {fact}: {source} says {value!r}, the model's own files say {own!r}")
        elif spec is None and own is not None and known is not None and own != known:
            self.conflicts.append(f"{self.base}: {fact}: the model's own files say {own!r}, we expected {known!r}")
