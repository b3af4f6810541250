"""Architectures: where they keep the projections of a layer, and what they cannot do.

The names come from the modules of transformers 5.23 (`models/<model_type>/modeling_<model_type>.py`);
tests/trainables/bases/test_known_bases.py checks them against the real modules of every known base.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.targets import ROLES, Role


@dataclass(frozen=True)
class Layout:
    """What the modules of an architecture mean.

    Attributes:
        roles: role -> paths inside one layer. Under "qkv" lies the projection that computes query, key and value
            together: none of the three can be adapted alone.
        position_offset: positions that the embedding table reserves before the first token (RoBERTa: padding_idx + 1
            = 2), so that the longest input has max_position_embeddings - position_offset tokens.
        gated: the feed-forward layer has a gate: two projections in, one out.
        fp16: its activations stay within fp16's largest number.
    """

    roles: dict[Role, tuple[str, ...]]
    position_offset: int = 0
    gated: bool = False
    fp16: bool = True


def _bert_like(query: str, key: str, value: str) -> dict[Role, tuple[str, ...]]:
    return {
        "q": (f"attention.self.{query}",),
        "k": (f"attention.self.{key}",),
        "v": (f"attention.self.{value}",),
        "o": ("attention.output.dense",),
        "ffn": ("intermediate.dense", "output.dense"),
    }


_BERT = _bert_like("query", "key", "value")
_LLAMA: dict[Role, tuple[str, ...]] = {
    "q": ("self_attn.q_proj",),
    "k": ("self_attn.k_proj",),
    "v": ("self_attn.v_proj",),
    "o": ("self_attn.o_proj",),
    "ffn": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
LAYOUTS: dict[str, Layout] = {
    "bert": Layout(_BERT),
    "roberta": Layout(_BERT, position_offset=2),
    "xlm-roberta": Layout(_BERT, position_offset=2),
    "camembert": Layout(_BERT, position_offset=2),
    "deberta-v2": Layout(_bert_like("query_proj", "key_proj", "value_proj")),
    "modernbert": Layout({"qkv": ("attn.Wqkv",), "o": ("attn.Wo",), "ffn": ("mlp.Wi", "mlp.Wo")}, gated=True),
    "qwen3": Layout(_LLAMA, gated=True),
    # Hidden states beyond 65,504: the card of google/embeddinggemma-300m rules fp16 out, and so it is for Gemma 3.
    "gemma3_text": Layout(_LLAMA, gated=True, fp16=False),
    "gte": Layout(_LLAMA, gated=True),
    "eurobert": Layout(_LLAMA, gated=True),
}

# For architectures that have no Layout: what a projection's parent is called, then what the projection is. A name alone
# decides nothing: `o`, `Wo`, `dense` are attention's output in one parent and the feed-forward's in another.
_ATTENTION = frozenset({"attn", "attention", "self", "self_attn", "self_attention", "selfattention"})
_FEED_FORWARD = frozenset({"mlp", "ffn", "feed_forward", "densereludense", "intermediate"})
_IN_ATTENTION: dict[str, Role] = {
    **dict.fromkeys(("query", "query_proj", "q_proj", "q_lin", "q", "wq"), "q"),
    **dict.fromkeys(("key", "key_proj", "k_proj", "k_lin", "k", "wk"), "k"),
    **dict.fromkeys(("value", "value_proj", "v_proj", "v_lin", "v", "wv"), "v"),
    **dict.fromkeys(("qkv", "wqkv", "qkv_proj", "query_key_value", "in_proj"), "qkv"),
    **dict.fromkeys(("o_proj", "out_proj", "out_lin", "o", "wo", "dense"), "o"),
}


def role_of(model_type: str, path: str) -> Role | None:
    """What a linear module is for, by its path inside a layer (`attn.Wo`); None: not known.

    Where the architecture has a Layout, that decides; elsewhere the module's parent, then its own name.
    """
    layout = LAYOUTS.get(model_type)
    if layout is not None:
        return next((role for role, paths in layout.roles.items() if path in paths), None)
    *parents, leaf = path.lower().split(".")
    parent = parents[-1] if parents else ""
    if parent == "output":  # BERT's: of attention where it lies in it, else of the feed-forward layer
        return "o" if len(parents) > 1 and parents[-2] in _ATTENTION else "ffn"
    if parent in _FEED_FORWARD:
        return "ffn"
    return _IN_ATTENTION.get(leaf) if parent in _ATTENTION else None


def fused_note(model_type: str, asked: tuple[Role, ...]) -> str | None:
    """What to say where an architecture computes query, key and value in one projection; None: nothing."""
    layout = LAYOUTS.get(model_type)
    (*names,) = layout.roles.get("qkv", ()) if layout else ()
    letters = [role for role in ROLES[:3] if role in asked]
    if not names or not letters:
        return None
    return f"{model_type} computes query, key and value in one projection: {''.join(letters)} is all of {names[0]}"
