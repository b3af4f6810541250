"""Tokens of a base's texts, kept by a warm worker: a search reads the same texts in every epoch, rung and trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch.nn.utils.rnn import pad_sequence

KEPT = 50_000_000  # tokens of a base, at 4 bytes; texts beyond are tokenized each time
_PADDED = ("input_ids", "attention_mask", "token_type_ids")

Features = dict[str, Any]


class Tokens:
    """What the tokenizer made of each text, by prompt and maximum length."""

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, Features]] = {}
        self._constant: dict[Any, Features] = {}
        self._left = KEPT

    def keep_for(self, module: Transformer) -> None:
        """Have `module.preprocess` look texts up here first; what it returns is the same."""
        module.preprocess = partial(self._preprocess, module, module.preprocess)  # type: ignore[method-assign]

    def _preprocess(
        self,
        module: Transformer,
        tokenize: Callable[..., Features],
        inputs: Sequence[Any],
        prompt: str | None = None,
        **options: Any,
    ) -> Features:
        plain = all(isinstance(text, str) for text in inputs)
        if not plain or any(isinstance(value, dict) for value in options.values()):
            return tokenize(inputs, prompt=prompt, **options)
        key = (module.max_seq_length, prompt, *sorted(options.items()))
        known = self._known.setdefault(key, {})
        rows = {text: known[text] for text in inputs if text in known}
        if missing := [text for text in dict.fromkeys(inputs) if text not in rows]:
            features = tokenize(missing, prompt=prompt, **options)
            if not _padded_on_the_right(features):
                return features if len(missing) == len(inputs) else tokenize(inputs, prompt=prompt, **options)
            new = _rows(features)
            rows |= dict(zip(missing, new, strict=True))
            self._constant[key] = {name: value for name, value in features.items() if not torch.is_tensor(value)}
            if self._left > 0:
                known |= {text: rows[text] for text in missing}
                self._left -= sum(row["input_ids"].numel() for row in new)
        return self._constant[key] | _padded([rows[text] for text in inputs], module)


def _padded_on_the_right(features: Features) -> bool:
    """False where a model pads on the left, or flattens its batches for flash attention."""
    if not {"input_ids", "attention_mask"} <= features.keys() <= {*_PADDED, "modality", "prompt_length"}:
        return False
    mask = features["attention_mask"]
    return bool((mask[:, :-1] >= mask[:, 1:]).all())


def _rows(features: Features) -> list[Features]:
    """Each text's tokens without their padding; its mask, all ones, is left out."""
    lengths = features["attention_mask"].sum(dim=1).tolist()
    names = [name for name in _PADDED if name in features and name != "attention_mask"]
    return [
        {name: features[name][i, :length].to(torch.int32, copy=True) for name in names}
        for i, length in enumerate(lengths)
    ]


def _padded(rows: list[Features], module: Transformer) -> Features:
    tokenizer: Any = module.tokenizer
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    padded: Features = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill[name]).long()
        for name in rows[0]
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    padded["attention_mask"] = (torch.arange(padded["input_ids"].shape[1]) < lengths[:, None]).long()
    return padded
