"""The model card of an exported classifier."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.classification.outcome import ClassScores
from trainables.bases.families import resolve_base
from trainables.config import ClassifierConfig
from trainables.export.card import CardFacts, data_section, recipe, results_section, whole_card
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
    labels = ", ".join(f"{number} `{label}`" for number, label in enumerate(config.labels))
    body = [
        *facts.notes,
        "## How to use it",
        f"```python\n{PAIRS if pairs else SINGLE}\n```",
        f"It reads {'pairs of texts' if pairs else 'single texts'}, cut at {resolve_base(config).max_length} tokens. "
        f"`AutoModelForSequenceClassification` loads it too. Labels: {labels}.",
        "## How it was trained",
        recipe(mix),
        *data_section(facts),
        *results_section(facts.figures, "examples", "baseline"),
        *_classes(classes),
    ]
    task, library = ("text-classification", "Text classification"), "sentence-transformers" if pairs else "transformers"
    what = f"`{config.base}` with a classification head"
    return whole_card(config, facts, task, library, "cross-encoder", what, body)


def _classes(classes: Sequence[ClassScores]) -> list[str]:
    if not classes:
        return []
    rows = ["| label | precision | recall | F1 | examples |", "|---|---|---|---|---|"]
    rows += [f"| {c.label} | {c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f} | {c.support} |" for c in classes]
    return ["## Each class, on the test part", "\n".join(rows)]
