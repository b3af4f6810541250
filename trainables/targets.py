"""LoRA targets by meaning: what the text of `targets` asks for, before any architecture is known."""

from __future__ import annotations

from typing import Literal

from evaluation.errors import InputError

Role = Literal["q", "k", "v", "qkv", "o", "ffn"]
ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "ffn")  # what can be asked for; qkv is what some architectures have
_WORDS: dict[str, tuple[Role, ...]] = {"ffn": ("ffn",), "attention": ("q", "k", "v", "o"), "all-linear": ROLES}


def parse_targets(targets: str) -> tuple[Role, ...]:
    """The roles that a `targets` text names, in the order q, k, v, o, ffn.

    Letters combine (`qk`, `qkv`), words are ffn, attention (q, k, v, o) and all-linear (attention and ffn);
    `+` joins them: `qv+ffn`.

    Raises:
        InputError: the text is anything else.
    """
    found: set[str] = set()
    for part in targets.split("+"):
        letters = set(part)
        if part in _WORDS:
            found.update(_WORDS[part])
        elif part and letters <= set("qkvo") and len(letters) == len(part):
            found.update(letters)
        else:
            raise InputError(
                f"targets: {targets!r} is not a LoRA target, "
                "expected q, k, v, o, ffn, attention, all-linear, letters together (qkv) or parts joined by + (qv+ffn)"
            )
    return tuple(role for role in ROLES if role in found)
