"""What a trial is called where people look for it: `demo trial 0007 e5-base qkv r16 lr 2e-4`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.paths import BASES

MOST = 100  # characters


def trial_name(search: str, number: int, config: Mapping[str, Any]) -> str:
    """The name of a trial: its search, its number, and what of its configuration tells it from others."""
    return f"{search} trial {number:04d} {short_config(config)}"[:MOST]


def short_config(config: Mapping[str, Any]) -> str:
    """`e5-base qkv r16 lr 2e-4`, of a full fine-tuning `e5-base full lr 2e-5`, of the base as it is `e5-base none`."""
    base = Path(config["base"])
    parts = [base.name.rpartition("-")[0] if base.parent.name == BASES else base.name]  # its hash tells nobody anything
    if config["method"] == "lora":
        parts += [str(config["targets"]), f"r{config['r']}"]
    else:
        parts.append(config["method"])
    if config["method"] != "none":
        parts.append(f"lr {config['lr']:.0e}".replace("e-0", "e-"))
    return " ".join(parts)
