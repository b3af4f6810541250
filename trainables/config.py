"""TrialConfig: everything that decides a trial's result, complete and serialisable."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainables.targets import parse_targets

Method = Literal["lora", "full", "none"]
BatchStrategy = Literal["in_batch", "sorted", "clustered", "mined", "mixed"]
Loss = Literal["mnrl", "mnrl_symmetric", "gist"]


class TrialConfig(BaseModel):
    """One trial. Two trials with equal configurations and data give equal scores on the same hardware."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The base model
    base: str = Field(min_length=1, description="hub id or local folder of the base model")
    revision: str | None = Field(None, description="commit, branch or tag of a hub model; none: its default branch")
    trust_remote_code: bool = Field(False, description="run the code that the base's repository brings")
    task: str | None = Field(None, description="task text of an instruct base's query prompt")
    query_prompt: str | None = Field(
        None, description="text before each query; none: what the base's files or family say"
    )
    passage_prompt: str | None = Field(None, description="text before each passage; none: likewise")
    pooling: Literal["mean", "cls", "lasttoken"] | None = Field(
        None, description="none: what the base's files or family say"
    )
    max_length: int | None = Field(None, ge=4, description="tokens, prompt included; none: the base's own maximum")

    # What is trained
    method: Method = Field(
        "lora", description="lora: an adapter; full: every weight; none: the base as it is, evaluated only"
    )
    targets: str = Field(
        "qv", description="LoRA targets by meaning: q, k, v, o, ffn, or qk, qv, qkv, attention, all-linear"
    )
    last_n: int | None = Field(None, ge=1, description="adapt the last n layers only; none: all layers")
    r: int = Field(16, ge=1, description="LoRA rank")
    alpha: float = Field(
        32.0, gt=0, description="LoRA scale: the update is multiplied by alpha / r, with rsLoRA by alpha / sqrt(r)"
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the adapter's input")
    rslora: bool = Field(False, description="rank-stabilised scaling (arXiv 2312.03732)")
    dora: bool = Field(False, description="weight-decomposed adaptation (arXiv 2402.09353)")

    # How it is trained
    lr: float = Field(5e-5, gt=0, description="peak learning rate")
    epochs: float = Field(1.0, gt=0, description="passes over the training pairs")
    batch_size: int = Field(32, ge=2, description="pairs per optimizer step, over all devices")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="learning rate after warm-up"
    )
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    batches: BatchStrategy = Field("in_batch", description="how batches are composed: trainables/batches/sampler.py")
    mixed_share: float = Field(0.5, ge=0, le=1, description="mixed: share of the batches that are clustered")
    refresh: bool = Field(
        False, description="clustered, mixed: embed the training pairs anew each epoch with the model so far"
    )
    hard_negatives: int = Field(
        1, ge=1, description="negatives for each pair: the data's own in every strategy, more of them with mined"
    )
    margin: float = Field(
        0.05, ge=0, lt=1, description="mined: a negative scores below (1 - margin) x the positive (arXiv 2407.15831)"
    )
    loss: Loss = Field(
        "mnrl", description="mnrl: anchor to passages; mnrl_symmetric: both directions; gist: guided by the base"
    )
    temperature: float = Field(0.05, gt=0, description="cosines are divided by it in the loss")
    matryoshka: tuple[int, ...] = Field((), description="embedding sizes that are trained beside the full one")

    # How it is run
    rungs: int = Field(
        4,
        ge=1,
        description="dev evaluations, at equal shares of training; the pruner may stop a trial at each but the last",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: the fastest that the device computes natively"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field("auto")
    gradient_checkpointing: bool = Field(False, description="less memory for about a third more time")
    micro_batch_tokens: int | None = Field(
        None, ge=64, description="cached loss: tokens held in memory at once (arXiv 2101.06983)"
    )
    seed: int = Field(42, ge=0)

    @field_validator("targets")
    @classmethod
    def _targets_exist(cls, targets: str) -> str:
        parse_targets(targets)
        return targets

    @model_validator(mode="after")
    def _check(self) -> TrialConfig:
        if self.loss == "gist" and self.matryoshka:
            raise ValueError("matryoshka needs loss mnrl or mnrl_symmetric, got gist")
        if self.loss == "gist" and self.batches == "mined" and self.hard_negatives > 1:
            raise ValueError("hard_negatives: loss gist takes 1 negative for each pair, expected 1 with batches mined")
        return self
