"""Hard negatives: those of the data, and those mined by the base."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from filelock import FileLock
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from evaluation.embeddings import fitting_batch
from evaluation.errors import InputError
from evaluation.files import write_whole
from evaluation.task import fold
from trainables.batches.passages import base_key
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.plan.memory import negatives_of_a_pair

DRAWS = 50  # of a random passage, before all are looked through
# Scores held at once. Where the base ranks a positive low, its negatives rank lower still, so a short list of the
# best passages would hold none of them; up to 7,000 anchors and passages every passage is a candidate.
CANDIDATES = 50_000_000
LARGEST = 100  # passages of a concept that are asked for beyond the negatives, to be taken out again
log = logging.getLogger(__name__)


def with_own(train: Dataset, config: TrialConfig) -> Dataset:
    """Training rows with the data's own negatives as columns negative_1, ...; unchanged where it has none.

    At most config.hard_negatives of each row are taken, and 1 for loss gist, which has room for no more. A row with
    fewer takes passages of other concepts at random.
    """
    most = negatives_of_a_pair(config, most_negatives(train))
    return _filled(train, list(train["negatives"]), most, config.seed) if most else train


def most_negatives(train: Dataset) -> int:
    """Negatives of the training row that brings the most of its own."""
    return max(map(len, train["negatives"]), default=0)


def with_mined(data: TrialData, config: TrialConfig, model: SentenceTransformer, cache: Path | None = None) -> Dataset:
    """Training rows with config.hard_negatives negatives each: the data's own first, then mined ones.

    A mined negative is a training passage of another concept that scores below (1 - margin) x the row's passage
    (arXiv 2407.15831), best first. A row without enough of them takes passages of other concepts at random, so that
    no row is lost.

    Args:
        model: embeds as the base does.
        cache: folder where trials of one base and data share what was mined; None: nothing is kept.
    """
    train, count = data.train, config.hard_negatives
    if cache is None:
        mined = _mine(train, model, count, config.margin)
    else:
        name = f"{base_key(config, data, model)}-{count}-{config.margin:g}.json"
        path = cache / "mined" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                write_whole(path, json.dumps(_mine(train, model, count, config.margin), ensure_ascii=False))
        mined = json.loads(path.read_text(encoding="utf-8"))
    both = [list(dict.fromkeys([*own, *more])) for own, more in zip(train["negatives"], mined, strict=True)]
    found = sum(len(negatives) >= count for negatives in both)
    log.info("%d of %d rows have %d hard negatives; random passages fill the others", found, len(both), count)
    return _filled(train, both, count, config.seed)


def _mine(train: Dataset, model: SentenceTransformer, count: int, margin: float) -> list[list[str]]:
    """Up to `count` mined passages for each row, hardest first."""
    anchors, positives = list(train["anchor"]), list(train["positive"])
    most = min(LARGEST, max(len(own) for own in _answers(train)))
    # The library knows an anchor's own positives, not its concept's: ask for more and take those out afterwards.
    corpus = list(dict.fromkeys(positives))
    if len(corpus) < 2:
        return [[] for _ in anchors]
    asked = min(len(corpus) - 1, count + most)
    training = model.training
    found = mine_hard_negatives(
        Dataset.from_dict({"anchor": anchors, "positive": positives}),
        model,
        range_max=min(len(corpus) - 1, max(10 * count + most, CANDIDATES // len(set(anchors)))),
        relative_margin=margin,
        num_negatives=asked,
        query_prompt_name="query" if "query" in model.prompts else None,
        corpus_prompt_name="document" if "document" in model.prompts else None,
        output_format="labeled-pair",
        batch_size=fitting_batch(32, max(map(len, [*anchors, *corpus])), model.max_seq_length),
        use_faiss=True,
        verbose=False,
    )
    model.train(training)
    candidates: dict[str, dict[str, None]] = {}
    for anchor, passage, label in zip(found["anchor"], found["positive"], found["label"], strict=True):
        if label == 0:
            candidates.setdefault(anchor, {})[passage] = None
    return [
        [passage for passage in candidates.get(anchor, {}) if fold(passage) not in own][:count]
        for anchor, own in zip(anchors, _answers(train), strict=True)
    ]


def _answers(train: Dataset) -> list[frozenset[str]]:
    """For each row the passages (white space folded) that answer its anchor: those of all concepts it stands under."""
    anchors = [fold(anchor).casefold() for anchor in train["anchor"]]
    concepts_of: dict[str, set[str]] = {}
    passages_of: dict[str, set[str]] = {}
    for anchor, concept, positive in zip(anchors, train["concept"], train["positive"], strict=True):
        concepts_of.setdefault(anchor, set()).add(concept)
        passages_of.setdefault(concept, set()).add(fold(positive))
    answers = {
        anchor: frozenset[str]().union(*(passages_of[concept] for concept in concepts))
        for anchor, concepts in concepts_of.items()
    }
    return [answers[anchor] for anchor in anchors]


def _filled(train: Dataset, negatives: Sequence[Sequence[str]], count: int, seed: int) -> Dataset:
    """Rows with columns negative_1..negative_<count>; what a row lacks is drawn from passages that do not answer it."""
    passages = list(dict.fromkeys(train["positive"]))
    rng = np.random.default_rng([seed, 1])
    columns: list[list[str]] = [[] for _ in range(count)]
    for given, answers in zip(negatives, _answers(train), strict=True):
        chosen = list(given[:count])
        while len(chosen) < count:
            chosen.append(_other(passages, answers, chosen, rng))
        for column, text in zip(columns, chosen, strict=True):
            column.append(text)
    for at, column in enumerate(columns, start=1):
        train = train.add_column(f"negative_{at}", column)
    return train


def _other(passages: list[str], answers: frozenset[str], chosen: list[str], rng: np.random.Generator) -> str:
    """A passage that is neither an answer nor chosen already."""
    for _ in range(DRAWS):
        text = passages[int(rng.integers(len(passages)))]
        if fold(text) not in answers and text not in chosen:
            return text
    left = [text for text in passages if fold(text) not in answers and text not in chosen]
    if not left:
        raise InputError(
            f"hard_negatives: the {len(passages)} training passages do not hold {len(chosen) + 1} that do not answer "
            "some row, take fewer"
        )
    return left[int(rng.integers(len(left)))]
