"""What a training step holds for its backward pass, from an architecture's sizes: see trainables/plan/memory.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluation.errors import InputError
from trainables.bases.families import ResolvedBase
from trainables.config import TrialConfig
from trainables.plan.parameters import adapted, meta_model


@dataclass(frozen=True)
class Held:
    """Values that a layer holds for a token: multiples of the hidden size, of the feed-forward width, and of the width
    of all heads together."""

    hidden: float
    forward: float
    heads: float = 0


# (frozen base, float32), (frozen, 16-bit), (fully trained, float32), (fully trained, 16-bit): fitted to what autograd
# saves over hidden sizes, feed-forward widths and heads (tests/trainables/plan/test_memory.py holds them to it).
Coefficients = tuple[Held, Held, Held, Held]
_BERT: Coefficients = (Held(7, 1), Held(11, 1), Held(10, 2), Held(18, 2))
_QWEN3: Coefficients = (Held(3, 3, 2), Held(4, 3, 5.5), Held(7, 4, 4.5), Held(17.5, 4.4, 8))
HELD: dict[str, Coefficients] = {
    "modernbert": (Held(4, 3), Held(5, 3), Held(7, 4), Held(14, 4.5)),
    "eurobert": (Held(3, 3, 0.5), Held(4, 3, 1.5), Held(7.5, 4, 1), Held(17.5, 4.5, 2)),
    "gte": (Held(5, 4), Held(5, 4), Held(9, 5), Held(18, 5.3)),
    "qwen3": _QWEN3,
    "gemma3_text": (Held(5, 3, 2), Held(8, 3, 5.5), Held(11, 4, 4.5), Held(25.5, 4.4, 9)),
}


@dataclass(frozen=True)
class Sizes:
    """Of an encoder: hidden size, feed-forward width, layers, heads and their width together."""

    hidden: int
    forward: int
    layers: int
    heads: int
    width: int

    @classmethod
    def of(cls, base: ResolvedBase) -> Sizes:
        """Of a base, as its configuration says.

        Raises:
            InputError: its own code calls them otherwise than transformers does.
        """
        figures = meta_model(base).config
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        hidden, layers, heads = (getattr(figures, name, None) for name in names)
        if not (hidden and layers and heads):
            raise InputError(f"{base.name}: its own code does not say its {', '.join(names)}")
        forward = getattr(figures, "intermediate_size", None) or 4 * hidden
        head = getattr(figures, "head_dim", None) or hidden // heads
        return cls(hidden, forward, layers, heads, heads * head)


def activations(
    config: TrialConfig,
    base: ResolvedBase,
    sizes: Sizes,
    device: str,
    precision: str,
    attention: str | None,
    tokens: int,
    length: int,
) -> tuple[float, float]:
    """Bytes that the backward pass needs, and the largest work space.

    Args:
        tokens: held at once.
        length: of a text.
    """
    figures: Any = meta_model(base).config
    layers = min(config.last_n or sizes.layers, sizes.layers)
    e = 4 if precision == "fp32" else 2
    unknown = _QWEN3 if getattr(figures, "num_key_value_heads", None) else _BERT
    held = HELD.get(base.model_type, unknown)[2 * (config.method == "full") + (precision != "fp32")]
    a_token = e * (held.hidden * sizes.hidden + held.forward * sizes.forward + held.heads * sizes.width)
    drops = getattr(figures, "attention_probs_dropout_prob", getattr(figures, "attention_dropout", 0))
    kept = {"eager": 3 * e, "sdpa": 12 if device == "cpu" and drops else 0}.get(attention or "", 0)
    scores = kept * sizes.heads * length
    a_layer = 0
    if base.model_type == "deberta-v2" and getattr(figures, "relative_attention", False):
        positions = 2 * (figures.position_buckets if figures.position_buckets > 0 else figures.max_position_embeddings)
        a_token += e * (sizes.hidden + 2 * sizes.heads * positions)
        scores *= 2
        a_layer = 17 * e * positions * sizes.hidden
    total = layers * (tokens * (a_token + scores) + a_layer)
    if config.method == "lora":
        inputs = sum(linear.in_features for linear in adapted(config, meta_model(base)))
        total += tokens * (2 if precision == "fp32" else 3) * e * inputs
    if config.gradient_checkpointing:
        total = layers * tokens * e * sizes.hidden + total / layers
    return total, 2 * e * tokens * max(sizes.forward, sizes.heads * length if scores else 0)
