"""Base-model families: prompts, pooling, maximum length and the figures that are known without a network.

What a model's own files state wins over what we know of its family, and a difference is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from evaluation.errors import InputError
from trainables.bases import architectures, hub
from trainables.config import TrialConfig

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
# What E5's model card uses for web search; a spec that names its own task does better.
DEFAULT_TASK = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Family:
    """What is known of a family of base models before any of its files is read.

    Attributes:
        pattern: regular expression on the last part of the name, lower case.
        figures: transformers configuration values.
        source: where the facts come from.
        query_prompt: may hold {task}.
        max_length: tokens.
    """

    name: str
    pattern: str
    figures: dict[str, Any]
    pooling: str
    source: str
    query_prompt: str = ""
    passage_prompt: str = ""
    max_length: int = 512


FAMILIES: tuple[Family, ...] = (
    Family(
        "multilingual-e5-large-instruct",
        r"multilingual-e5-large-instruct.*",
        architectures.XLMR_LARGE,
        "mean",
        "model card of intfloat/multilingual-e5-large-instruct",
        query_prompt="Instruct: {task}\nQuery: ",
    ),
    Family(
        "multilingual-e5-large",
        r"multilingual-e5-large.*",
        architectures.XLMR_LARGE,
        "mean",
        "model card of intfloat/multilingual-e5-large",
        "query: ",
        "passage: ",
    ),
    Family(
        "multilingual-e5-base",
        r"multilingual-e5-base.*",
        architectures.XLMR_BASE,
        "mean",
        "model card of intfloat/multilingual-e5-base",
        "query: ",
        "passage: ",
    ),
    Family(
        "multilingual-e5-small",
        r"multilingual-e5-small.*",
        architectures.E5_SMALL,
        "mean",
        "model card of intfloat/multilingual-e5-small",
        "query: ",
        "passage: ",
    ),
    Family(
        "solon-large",
        r"solon-embeddings-large.*",
        architectures.XLMR_LARGE,
        "mean",
        "prompt: model card of OrdalieTech/Solon-embeddings-large-0.1; pooling: its 1_Pooling/config.json",
        "query : ",
    ),
    Family(
        "solon-base",
        r"solon-embeddings-base.*",
        architectures.XLMR_BASE,
        "mean",
        "as OrdalieTech/Solon-embeddings-large-0.1; its own files decide",
        "query : ",
    ),
    Family(
        "bge-m3",
        r"bge-m3.*",
        architectures.BGE_M3,
        "cls",
        "model card of BAAI/bge-m3 and arXiv 2402.03216",
        max_length=8192,
    ),
    Family(
        "camembertav2",
        r"camembertav2-base.*",
        architectures.CAMEMBERTAV2_BASE,
        "mean",
        "arXiv 2411.08868; a raw encoder: mean pooling is our choice",
        max_length=1024,
    ),
    Family(
        "camemberta",
        r"camemberta-base.*",
        architectures.CAMEMBERTA_BASE,
        "mean",
        "ACL 2023 findings, CamemBERTa; a raw encoder: mean pooling is our choice",
    ),
    Family(
        "camembert",
        r"camembert-base.*",
        architectures.CAMEMBERT_BASE,
        "mean",
        "ACL 2020, CamemBERT; a raw encoder: mean pooling is our choice",
    ),
    Family(
        "all-minilm-l6-v2",
        r"(gt-)?all-minilm-l6-v2",
        architectures.MINILM_L6,
        "mean",
        "model card of sentence-transformers/all-MiniLM-L6-v2",
        max_length=256,
    ),
)


@dataclass(frozen=True)
class ResolvedBase:
    """The facts that decide how a base is prompted, pooled and truncated, each with its source.

    Attributes:
        pooling: sentence-transformers' pooling mode; modes joined by + when the model concatenates several.
        max_length: tokens, prompt and special tokens included.
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
    packaged: bool
    figures: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    foreign: bool = False


def find_family(base: str) -> Family | None:
    """The family whose pattern the last part of the name matches; None for the generic fall-back."""
    name = base.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((family for family in FAMILIES if re.fullmatch(family.pattern, name)), None)


def resolve_base(config: TrialConfig) -> ResolvedBase:
    """Settle prompts, pooling and maximum length of the trial's base: spec, then its own files, then its family.

    Reads small JSON files only, never weights; with no network and no cache the family's facts stand.

    Raises:
        InputError: nothing is known of the base, or max_length is beyond its positions.
    """
    base, revision = config.base, config.revision
    family = find_family(base)
    files = {name: hub.read_json(base, name, revision) for name in ("config.json", "modules.json")}
    figures: dict[str, Any] | None = files["config.json"] or (family.figures if family else None)
    if figures is None:
        raise InputError(
            f"base: nothing is known of {base}: no local folder, not in the cache, not reachable on the hub, "
            f"and not one of the families {', '.join(f.name for f in FAMILIES)}; the demo's is {hub.DEMO_BASE}"
        )
    facts = _Facts(base)
    query, passage = _own_prompts(base, revision)
    own_pooling = _own_pooling(base, revision, files["modules.json"])
    facts.settle("query_prompt", config.query_prompt, query, _query_prompt(family, config.task), family, "")
    facts.settle(
        "passage_prompt", config.passage_prompt, passage, family.passage_prompt if family else None, family, ""
    )
    facts.settle("pooling", config.pooling, own_pooling, family.pooling if family else None, family, "mean")
    usable = usable_positions(figures)
    own_length = _own_max_length(base, revision)
    own_length = min(own_length, usable) if own_length and usable else own_length
    facts.settle(
        "max_length", config.max_length, own_length, family.max_length if family else None, family, usable or 512
    )
    max_length = int(facts.values["max_length"])
    if usable is not None and max_length > usable:
        raise InputError(f"max_length: {max_length} is more than the {usable} tokens that {base} has positions for")
    if family and "{task}" in family.query_prompt and config.task is None and config.query_prompt is None:
        facts.notes.append(f"{base}: no task in the spec, the query prompt says {DEFAULT_TASK!r}")
    return ResolvedBase(
        name=base,
        revision=revision,
        family=family.name if family else "generic",
        model_type=figures["model_type"],
        query_prompt=facts.values["query_prompt"],
        passage_prompt=facts.values["passage_prompt"],
        pooling=facts.values["pooling"],
        max_length=max_length,
        packaged=files["modules.json"] is not None,
        figures=figures,
        sources=facts.sources,
        conflicts=tuple(facts.conflicts),
        notes=tuple(facts.notes),
        foreign=config.trust_remote_code and not {"AutoConfig", "AutoModel"}.isdisjoint(figures.get("auto_map") or {}),
    )


def usable_positions(figures: dict[str, Any]) -> int | None:
    """Tokens that the position embeddings have room for; None when the configuration does not say."""
    layout = architectures.LAYOUTS.get(figures.get("model_type", ""))
    positions = figures.get("max_position_embeddings")
    return None if not positions or positions < 0 else positions - (layout.position_offset if layout else 0)


class _Facts:
    """Values settled one by one, with their sources and the conflicts met."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.conflicts: list[str] = []
        self.notes: list[str] = []

    def settle(self, fact: str, spec: Any, own: Any, known: Any, family: Family | None, default: Any) -> None:
        """Take the first of spec, own files, family, default; report where the own files and another differ."""
        candidates = [
            (spec, "the spec"),
            (own, "the model's own files"),
            (known, family.source if family else ""),
            (default, "the default"),
        ]
        value, source = next((value, source) for value, source in candidates if value is not None)
        self.values[fact], self.sources[fact] = value, source
        shorter = fact == "max_length" and own is not None and value < own  # a choice that costs nothing
        if own is not None and value != own and not shorter:
            self.conflicts.append(f"{self.base}: {fact}: {source} says {value!r}, the model's own files say {own!r}")
        elif spec is None and own is not None and known is not None and own != known:
            self.conflicts.append(f"{self.base}: {fact}: the model's own files say {own!r}, we expected {known!r}")


def _query_prompt(family: Family | None, task: str | None) -> str | None:
    return family.query_prompt.replace("{task}", task or DEFAULT_TASK) if family else None


def _own_prompts(base: str, revision: str | None) -> tuple[str | None, str | None]:
    """The prompts that config_sentence_transformers.json states.

    sentence-transformers writes empty query and document prompts for a model that was given none, so two empty ones
    state nothing.
    """
    stated = (hub.read_json(base, "config_sentence_transformers.json", revision) or {}).get("prompts") or {}
    query = stated.get("query")
    # The order in which encode_document looks for its prompt.
    passage = next((stated[name] for name in ("document", "passage", "corpus") if stated.get(name) is not None), None)
    return (query, passage) if query or passage else (None, None)


def _own_pooling(base: str, revision: str | None, modules: list[dict[str, Any]] | None) -> str | None:
    for module in modules or []:
        if module["type"].endswith(".Pooling"):
            stated = hub.read_json(base, f"{module['path']}/config.json", revision) or {}
            mode = stated.get("pooling_mode")
            if mode is not None:
                return mode if isinstance(mode, str) else "+".join(mode)
            return "+".join(name for key, name in POOLINGS.items() if stated.get(key)) or "mean"
    return None


def _own_max_length(base: str, revision: str | None) -> int | None:
    """The length that sentence-transformers or the tokenizer states; absurdly large means none."""
    stated = (hub.read_json(base, "sentence_bert_config.json", revision) or {}).get("max_seq_length")
    stated = stated or (hub.read_json(base, "tokenizer_config.json", revision) or {}).get("model_max_length")
    return int(stated) if stated and stated < 1_000_000 else None
