"""Trials as runs of Weights & Biases."""

from __future__ import annotations

from ray.air.integrations.wandb import WandbLoggerCallback


class WandbLogger(WandbLoggerCallback):
    """A trial's state stands in its configuration: a run of Weights & Biases knows only finished and failed."""

    AUTO_CONFIG_KEYS = [*WandbLoggerCallback.AUTO_CONFIG_KEYS, "state"]  # noqa: RUF012
