"""Tokens of a base's texts, kept by a warm worker: a search reads the same texts in every epoch, rung and trial."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer

from trainables.model.groups import MASK, Features, forward_in_groups

KEPT_BYTES = 256 * 2**20  # of a base in a process; texts beyond are tokenized each time
OVERHEAD_BYTES = 300  # of a kept text beside its characters and tokens: an array's head and two places in a dict
CONSTANT = ("modality", "prompt_length")  # what else a batch of texts holds


@dataclass
class Kept:
    """What the tokenizer made of texts with one prompt, task and maximum length.

    Attributes:
        rows: of each text what the named tensors hold, without their padding, one line for each of them.
        names: of the tensors, in the library's order.
        constant: what is no tensor.
    """

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    constant: Features = field(default_factory=dict)


class KeptTokens:
    """What is kept of a base's texts."""

    def __init__(self) -> None:
        self.kept: defaultdict[Any, Kept] = defaultdict(Kept)
        self.left = KEPT_BYTES

    def keep_for(self, module: torch.nn.Module) -> None:
        """Have the module's `preprocess` look texts up here first; what it returns is the same. And have its `forward`
        take them in groups of like length."""
        if type(module) is Transformer:
            keeping: Any = module
            keeping.__class__ = KeepingTransformer
            keeping.tokens = self


class KeepingTransformer(Transformer):
    """The library's module for the length of a training; it is never saved."""

    tokens: KeptTokens

    def forward(self, features: Features, **kwargs: Any) -> Features:
        def whole(features: Features) -> Features:
            made: Features = super(KeepingTransformer, self).forward(features, **kwargs)
            return made

        return forward_in_groups(self, features, whole)

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: Any = None,
        **kwargs: Any,
    ) -> Features:
        def tokenize(texts: Sequence[Any]) -> Features:
            features: Features = super(KeepingTransformer, self).preprocess(texts, prompt, processing_kwargs, **kwargs)
            return features

        tokenizer: Any = self.tokenizer
        usual = not (processing_kwargs or self.processing_kwargs)
        if not usual or not inputs or not all(isinstance(text, str) for text in inputs):
            return tokenize(inputs)
        kept = self.tokens.kept[(self.max_seq_length, prompt, *sorted(kwargs.items()))]
        rows = {text: kept.rows[text] for text in inputs if text in kept.rows}
        if missing := [text for text in dict.fromkeys(inputs) if text not in rows]:
            features = tokenize(missing)
            constant = {name: value for name, value in features.items() if not torch.is_tensor(value)}
            names = [name for name in features if name not in constant]
            if MASK not in names or not set(constant) <= set(CONSTANT):  # flattened, for flash attention
                return features if len(missing) == len(inputs) else tokenize(inputs)
            kept.names, kept.constant = names, constant
            for text, row in zip(missing, _rows(features, names), strict=True):
                rows[text] = row
                if self.tokens.left > 0:
                    kept.rows[text] = row
                    self.tokens.left -= row.nbytes + sys.getsizeof(text) + OVERHEAD_BYTES
        return _padded([rows[text] for text in inputs], kept.names, tokenizer) | kept.constant


def _rows(features: Features, names: list[str]) -> list[np.ndarray]:
    """The texts of a batch, as `Kept` has them: without padding, on whichever side it is."""
    real = features[MASK].numpy().astype(bool)
    together = torch.stack([features[name] for name in names]).numpy().astype(np.int32)
    return [together[:, i, kept] for i, kept in enumerate(real)]


def _padded(rows: list[np.ndarray], names: list[str], tokenizer: Any) -> Features:
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    together = np.empty((len(names), len(rows), max(row.shape[1] for row in rows)), dtype=np.int64)
    together[:] = np.array([fill.get(name, 0) for name in names])[:, None, None]
    width = together.shape[2]
    for i, row in enumerate(rows):
        start = width - row.shape[1] if tokenizer.padding_side == "left" else 0
        together[:, i, start : start + row.shape[1]] = row
    return dict(zip(names, torch.from_numpy(together), strict=True))
