"""The losses that a search chooses from, all of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
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
    of so many tokens, padding included, for one more forward pass. On several devices negatives are gathered over all
    of them.

    Args:
        model: the trial's model.
        guide: gist only; None: the trial's base.

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
        loss = _MNRLInPieces(model, mini_batch_num_tokens=config.micro_batch_tokens, **options)
    else:
        loss = MultipleNegativesRankingLoss(model, **options)
    return _matryoshka(model, loss, config.matryoshka) if config.matryoshka else loss


class _InPieces(nn.Module):
    """Before a cached loss of the library: no micro-batch holds more tokens than was said, its padding included.

    The library fills a micro-batch by the texts' own tokens and pads it to the longest: one text of 500 tokens among 31
    of 20 would be 1,120 tokens to it and 16,000 to the memory. So a micro-batch of padded texts is a number of them
    here, by the longest of the batch. Texts that are packed without padding, for flash attention, it counts rightly.
    """

    mini_batch_size: int
    mini_batch_num_tokens: int | None

    def __init__(self, *arguments: Any, mini_batch_num_tokens: int, **options: Any) -> None:
        super().__init__(*arguments, mini_batch_num_tokens=mini_batch_num_tokens, **options)
        self._tokens = mini_batch_num_tokens

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        features = list(sentence_features)
        packed = any("cu_seq_lens_q" in column for column in features)
        self.mini_batch_num_tokens = self._tokens if packed else None
        if not packed:
            self.mini_batch_size = max(1, self._tokens // max(column["input_ids"].shape[1] for column in features))
        value: torch.Tensor = super().forward(features, labels)
        return value


class _MNRLInPieces(_InPieces, CachedMultipleNegativesRankingLoss):
    pass


class _GISTInPieces(_InPieces, CachedGISTEmbedLoss):
    pass


def _gist(
    model: SentenceTransformer, config: TrialConfig, guide: SentenceTransformer | None, gather: bool
) -> nn.Module:
    if guide is None:
        guide = build_model(config.model_copy(update={"method": "none"}), model.device)
    options: dict[str, Any] = {"temperature": config.temperature, "gather_across_devices": gather}
    if config.micro_batch_tokens:
        return _GISTInPieces(model, guide, mini_batch_num_tokens=config.micro_batch_tokens, **options)
    return GISTEmbedLoss(model, guide, **options)


def _matryoshka(model: SentenceTransformer, loss: nn.Module, sizes: tuple[int, ...]) -> nn.Module:
    """Train each of the sizes beside the full one (arXiv 2205.13147)."""
    full = model.get_embedding_dimension()
    if full is None or max(sizes) > full or min(sizes) < 1:
        raise InputError(f"matryoshka: {list(sizes)}, expected sizes from 1 to {full}, the base's own")
    return MatryoshkaLoss(model, loss, matryoshka_dims=sorted({full, *sizes}, reverse=True))
