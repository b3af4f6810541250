"""The losses that a search chooses from, all of sentence-transformers."""

from __future__ import annotations

from typing import Any, Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn

from evaluation.errors import InputError
from trainables.config import TrialConfig
from trainables.distributed import world_size
from trainables.model.build import build_model

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]


def make_loss(model: SentenceTransformer, config: TrialConfig, guide: SentenceTransformer | None = None) -> nn.Module:
    """The trial's loss over columns anchor, positive and perhaps negatives.

    mnrl            each anchor against all passages of the batch: InfoNCE (arXiv 1807.03748).
    mnrl_symmetric  and each passage against all anchors, the mean of both (arXiv 2310.19923).
    gist            in-batch negatives that the guide finds nearer than the positive are masked (arXiv 2402.16829):
                    the library's means against false negatives, of the same concept or not.

    Where config.micro_batch_tokens is set, gradients are cached (arXiv 2101.06983): a batch of any size in the memory
    of so many tokens, for one more forward pass. On several devices negatives are gathered over all of them.

    Args:
        model: the trial's model.
        guide: gist only; none: the trial's base.

    Raises:
        InputError: matryoshka sizes above the model's.
    """
    gather = world_size() > 1
    if config.loss == "gist":
        return _gist(model, config, guide, gather)
    directions: tuple[Direction, ...] = ("query_to_doc",)
    partition: Literal["joint", "per_direction"] = "joint"
    if config.loss == "mnrl_symmetric":
        directions, partition = ("query_to_doc", "doc_to_query"), "per_direction"
    options: dict[str, Any] = {
        "scale": 1 / config.temperature,
        "directions": directions,
        "partition_mode": partition,
        "gather_across_devices": gather,
    }
    loss: nn.Module
    if config.micro_batch_tokens:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_num_tokens=config.micro_batch_tokens, **options)
    else:
        loss = MultipleNegativesRankingLoss(model, **options)
    return _matryoshka(model, loss, config.matryoshka) if config.matryoshka else loss


def _gist(
    model: SentenceTransformer, config: TrialConfig, guide: SentenceTransformer | None, gather: bool
) -> nn.Module:
    if guide is None:
        guide = build_model(config.model_copy(update={"method": "none"}), model.device)
    options: dict[str, Any] = {"temperature": config.temperature, "gather_across_devices": gather}
    if config.micro_batch_tokens:
        return CachedGISTEmbedLoss(model, guide, mini_batch_num_tokens=config.micro_batch_tokens, **options)
    return GISTEmbedLoss(model, guide, **options)


def _matryoshka(model: SentenceTransformer, loss: nn.Module, sizes: tuple[int, ...]) -> nn.Module:
    """Train each of the sizes beside the full one (arXiv 2205.13147)."""
    full = model.get_embedding_dimension()
    if full is None or max(sizes) > full or min(sizes) < 1:
        raise InputError(f"matryoshka: {list(sizes)}, expected sizes from 1 to {full}, the base's own")
    return MatryoshkaLoss(model, loss, matryoshka_dims=sorted({full, *sizes}, reverse=True))
