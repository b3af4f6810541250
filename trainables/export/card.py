"""The model card of an export: the hub's metadata with its results, and what a person wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from trainables.bases import hub
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import ClassifierConfig, TrialConfig
from trainables.export.mix import Mix


@dataclass(frozen=True)
class Figure:
    """A score of the exported model on one part.

    Attributes:
        part: as people call it: dev, test, guard.
        metric: such as ndcg@10.
        value: of this model.
        queries: that it is a mean over.
        base: of its base on the same part; None: not measured.
        low, high: 95 % interval of the difference to the base.
    """

    part: str
    metric: str
    value: float
    queries: int
    base: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a card tells beside the configuration.

    Attributes:
        name: of the model, in its title.
        dataset: what it was trained on, as people call it.
        figures: its scores.
        sizes: rows of each part of the data.
        data_sha256: of the data; empty: not known.
        notes: paragraphs on how it was made: the search, the choice, what was given up.
    """

    name: str
    dataset: str
    figures: Sequence[Figure] = ()
    sizes: Mapping[str, int] | None = None
    data_sha256: str = ""
    notes: Sequence[str] = ()


def model_card(mix: Mix, facts: CardFacts, adapter_only: bool = False) -> str:
    """README.md of an exported model, metadata first.

    Args:
        adapter_only: the folder holds an adapter to be put on its base, not a model.
    """
    body = [
        *facts.notes,
        *_use(resolve_base(mix.config), mix, adapter_only),
        "## How it was trained",
        recipe(mix),
        *data_section(facts),
        *results_section(facts.figures, "queries", "base"),
    ]
    task, library = ("sentence-similarity", "Retrieval"), "sentence-transformers"
    return whole_card(mix.config, facts, task, library, library, f"`{mix.config.base}`", body)


def whole_card(
    config: TrialConfig, facts: CardFacts, task: tuple[str, str], library: str, tag: str, what: str, body: Sequence[str]
) -> str:
    """A card from its parts: metadata, title, what was fine-tuned, the rest.

    Args:
        config: of the first trial, whose base it is.
        task: the hub's name of the task, and its name for people.
        library: that loads the model.
        tag: beside embtune's.
        what: was fine-tuned.
        body: paragraphs; empty ones are left out.
    """
    licence = licence_of(config.base, config.revision)
    results = [
        EvalResult(
            task_type=task[0],
            task_name=task[1],
            dataset_type=facts.dataset,
            dataset_name=facts.dataset,
            dataset_split=figure.part,
            metric_type=figure.metric,
            metric_value=round(figure.value, 4),
        )
        for figure in facts.figures
    ]
    data = ModelCardData(
        library_name=library,
        pipeline_tag=task[0],
        tags=[tag, "embtune"],
        license=licence,
        base_model=config.base if on_hub(config.base) else None,  # the hub takes its own ids alone
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    begin = f"{what}, fine-tuned by embtune. Licence of the base: {licence or 'not stated in its files'}."
    paragraphs = "\n\n".join(part for part in (f"# {facts.name}", begin, *body) if part)
    return f"---\n{data.to_yaml()}\n---\n{paragraphs}\n"


def _use(base: ResolvedBase, mix: Mix, adapter_only: bool) -> list[str]:
    load = 'model = SentenceTransformer("path/to/this/folder")\n'
    what = "This folder is a whole model: its weights are merged in float32."
    if adapter_only:
        revision = f", revision={mix.config.revision!r}" if mix.config.revision else ""
        load = (
            f"model = SentenceTransformer({mix.config.base!r}{revision})\n"
            'model.load_adapter("path/to/this/folder")\n'
            f"model.prompts = {{'query': {base.query_prompt!r}, 'document': {base.passage_prompt!r}}}\n"
            f"model.max_seq_length = {base.max_length}\n"
        )
        what = "This folder is an adapter alone, to be put on its base."
    code = (
        "```python\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"{load}"
        'model.similarity(model.encode_query(["..."]), model.encode_document(["..."]))\n'
        "```"
    )
    prompts = (
        f"`encode_query` and `encode_document` add the prompts that the model was trained with: {base.query_prompt!r} "
        f"and {base.passage_prompt!r}. Pooling is {base.pooling}; texts are cut at {base.max_length} tokens."
    )
    return ["## How to use it", what, code, prompts]


def recipe(mix: Mix) -> str:
    """How each trial of a mix was trained, a line each."""
    lines = []
    rungs = len(mix.members) > 1 and all(member.config == mix.members[0].config for member in mix.members)
    for member in mix.members:
        c = member.config
        told: dict[str, Any] = {"method": c.method, "learning rate": f"{c.lr:.3g}", "batch size": c.batch_size}
        if c.method == "lora":
            told |= {"LoRA targets": c.targets, "rank": c.r, "alpha": f"{c.alpha:g}"}
            told |= {name: "yes" for name in ("rslora", "dora") if getattr(c, name)}
            told |= {} if c.last_n is None else {"last layers": c.last_n}
        if isinstance(c, ClassifierConfig):
            told |= {"class weights": c.class_weights or "none", "label smoothing": f"{c.label_smoothing:g}"}
        else:
            told |= {"batches": c.batches}
        told |= {"epochs": f"{c.epochs:g}", "seed": c.seed}
        share = f"{member.weight:.3g} of " if len(mix.members) > 1 else ""
        told |= {"weights": member.checkpoint.name} if rungs else {}
        lines.append(f"- {share}" + ", ".join(f"{key} {value}" for key, value in told.items()))
    ways = []
    if len(mix.members) > 1:
        ways.append(f"The merged weights of these {'rungs' if rungs else 'trials'} were averaged.")
    if mix.strength != 1:
        ways.append(f"The way from the base to the trained weights was gone to {mix.strength:g} of its length.")
    return "\n".join([*lines, "", *ways]).strip()


def data_section(facts: CardFacts) -> list[str]:
    """What it was trained on."""
    if not facts.sizes:
        return []
    sizes = ", ".join(f"{size:,} {part}" for part, size in facts.sizes.items())
    digest = f" Its sha256 is `{facts.data_sha256}`." if facts.data_sha256 else ""
    return ["## Data", f"{facts.dataset}: {sizes} rows.{digest}"]


def results_section(figures: Sequence[Figure], units: str, against: str) -> list[str]:
    """The table of the figures. Args: units: what a score is a mean over; against: what the model is held against."""
    if not figures:
        return []
    rows = [f"| part | {units} | metric | {against} | this model | difference (95 % interval) |"]
    rows.append("|---|---|---|---|---|---|")
    for f in figures:
        base = "" if f.base is None else f"{f.base:.4f}"
        gain = "" if f.base is None else f"{f.value - f.base:+.4f}"
        if f.low is not None and f.high is not None:
            gain += f" ({f.low:+.4f} to {f.high:+.4f})"
        rows.append(f"| {f.part} | {f.queries} | {f.metric} | {base} | {f.value:.4f} | {gain} |")
    return ["## Results", "\n".join(rows)]


def on_hub(base: str) -> bool:
    """Whether the base is named by its id on the hub."""
    return hub.local_folder(base) is None


def licence_of(base: str, revision: str | None) -> str | None:
    """The licence that the base's own card states."""
    path = hub.find_file(base, "README.md", revision)
    if path is None:
        return None
    licence = ModelCard.load(path, ignore_metadata_errors=True).data.license
    return str(licence) if licence else None
