"""The model card of an exported classifier."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from evaluation.classification.outcome import ClassScores
from trainables.bases.families import resolve_base
from trainables.config import ClassifierConfig
from trainables.export.card import CardFacts, data_section, licence_of, on_hub, recipe
from trainables.export.mix import Mix

PAIRS = (
    "from sentence_transformers import CrossEncoder\n"
    'model = CrossEncoder("path/to/this/folder")\n'
    'probabilities = model.predict([("first text", "second text")], apply_softmax=True)\n'
    "model.config.id2label[int(probabilities[0].argmax())]  # a row holds a probability (softmax) for each label"
)
SINGLE = (
    "from transformers import pipeline\n"
    'classify = pipeline("text-classification", model="path/to/this/folder", top_k=None)\n'
    'classify("a text")  # every label with its probability (softmax), the likeliest first'
)


def classifier_card(mix: Mix, facts: CardFacts, classes: Sequence[ClassScores], pairs: bool) -> str:
    """README.md of an exported classifier, metadata first.

    Args:
        facts: its figures; `base` in them is the baseline that it was held against.
        classes: scores of each class on the test part; none of a model that was not benchmarked.
        pairs: whether it reads pairs of texts.
    """
    config = mix.config
    assert isinstance(config, ClassifierConfig)
    licence = licence_of(config.base, config.revision)
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=facts.dataset,
            dataset_name=facts.dataset,
            dataset_split=figure.part,
            metric_type=figure.metric,
            metric_value=round(figure.value, 4),
        )
        for figure in facts.figures
    ]
    data = ModelCardData(
        library_name="sentence-transformers" if pairs else "transformers",
        pipeline_tag="text-classification",
        tags=["cross-encoder", "embtune"],
        license=licence,
        base_model=config.base if on_hub(config.base) else None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    labels = ", ".join(f"{number} `{label}`" for number, label in enumerate(config.labels))
    body = [
        f"# {facts.name}",
        f"`{config.base}` with a classification head, fine-tuned by embtune. Licence of the base: "
        f"{licence or 'not stated in its files'}.",
        *facts.notes,
        "## How to use it",
        f"```python\n{PAIRS if pairs else SINGLE}\n```",
        f"It reads {'pairs of texts' if pairs else 'single texts'}, cut at {resolve_base(config).max_length} tokens. "
        f"`AutoModelForSequenceClassification` loads it too. Labels: {labels}.",
        "## How it was trained",
        recipe(mix),
        *data_section(facts),
        *_figures(facts),
        *_classes(classes),
    ]
    return f"---\n{data.to_yaml()}\n---\n" + "\n\n".join(part for part in body if part) + "\n"


def _figures(facts: CardFacts) -> list[str]:
    if not facts.figures:
        return []
    rows = ["| part | examples | metric | baseline | this model | difference (95 % interval) |"]
    rows.append("|---|---|---|---|---|---|")
    for f in facts.figures:
        base = "" if f.base is None else f"{f.base:.4f}"
        gain = "" if f.base is None else f"{f.value - f.base:+.4f}"
        if f.low is not None and f.high is not None:
            gain += f" ({f.low:+.4f} to {f.high:+.4f})"
        rows.append(f"| {f.part} | {f.queries} | {f.metric} | {base} | {f.value:.4f} | {gain} |")
    return ["## Results", "\n".join(rows)]


def _classes(classes: Sequence[ClassScores]) -> list[str]:
    if not classes:
        return []
    rows = ["| label | precision | recall | F1 | examples |", "|---|---|---|---|---|"]
    rows += [f"| {c.label} | {c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f} | {c.support} |" for c in classes]
    return ["## Each class, on the test part", "\n".join(rows)]
