"""A batch's texts in groups of like length: padding costs as much as text, and a batch is as wide as its longest.

The same batch, loss and gradients, up to rounding: only what a text is padded to differs, which attention masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from torch.nn.functional import pad

MASK = "attention_mask"
# What one more pass through the encoder costs beside its tokens, in tokens: the calls of its operations, and matrices
# so small that they are multiplied at less than the full rate. `benchmarks/step_profile.py` measures it.
PASS_TOKENS: float = 64

Features = dict[str, Any]


def groups_of(lengths_B: np.ndarray, pass_tokens: float) -> list[tuple[np.ndarray, int]]:
    """The cheapest partition of B texts of these lengths: (rows, width) of each group, the shortest first.

    The cost of a group is rows x width + pass_tokens; texts of neighbouring length go together, so that dynamic
    programming over the sorted lengths finds the least (one vector operation a text). At an infinite price all texts
    are one group.
    """
    order = np.argsort(lengths_B, kind="stable")
    widths = lengths_B[order]
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        costs = least[:end] + (end - np.arange(end)) * widths[end - 1] + pass_tokens
        begins[end] = costs.argmin()
        least[end] = costs[begins[end]]
    groups = []
    end = len(order)
    while end:
        groups.append((order[begins[end] : end], int(widths[end - 1])))
        end = begins[end]
    return groups[::-1]


def forward_in_groups(module: Transformer, features: Features, forward: Callable[[Features], Features]) -> Features:
    """What `forward` makes of `features`, through the encoder in groups where that is cheaper.

    On a GPU a pass costs its launches rather than its padding, and texts are packed without any where its attention
    takes them so; there, and where texts are padded on the left, they go through together.
    """
    mask_BT: torch.Tensor | None = features.get(MASK)
    if mask_BT is None or not _divisible(module, mask_BT):
        return forward(features)
    width = mask_BT.shape[1]
    groups = groups_of(mask_BT.sum(1).numpy(), PASS_TOKENS)
    if len(groups) == 1:
        return forward(features)
    made = []
    for rows, narrow in groups:
        at = torch.from_numpy(rows)
        piece = {
            name: value[at, :narrow] if torch.is_tensor(value) and value.shape == mask_BT.shape else value
            for name, value in features.items()
        }
        tokens = forward(piece)[module.module_output_name]
        made.append(pad(tokens, (0, 0, 0, width - narrow)))
    back = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in groups])))
    features[module.module_output_name] = torch.cat(made)[back]
    return features


def _divisible(module: Transformer, mask_BT: torch.Tensor) -> bool:
    """Whether each text's tokens are the first of its row, on a CPU, and its embeddings one for each token."""
    tokenizer: Any = module.tokenizer
    return (
        mask_BT.device.type == "cpu"
        and mask_BT.ndim == 2
        and getattr(tokenizer, "padding_side", "") == "right"
        and module.module_output_name == "token_embeddings"
        and not getattr(module.config, "output_hidden_states", False)
    )
