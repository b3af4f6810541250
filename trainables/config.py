"""TrialConfig: everything that decides a trial's result, complete and serialisable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.config import JsonDict, JsonValue

from trainables.targets import parse_targets

Method = Literal["lora", "full", "none"]
BatchStrategy = Literal["in_batch", "sorted", "clustered", "mined", "mixed"]
Loss = Literal["mnrl", "mnrl_symmetric", "gist"]


def _used_when(**values: JsonValue) -> JsonDict:
    """Where a field has an effect: in configurations whose other fields have one of these values. Searches read it."""
    return {"used_when": values}


ADAPTED = _used_when(method=["lora"])
TRAINED = _used_when(method=["lora", "full"])


class TrialConfig(BaseModel):
    """One trial. Two trials with equal configurations and data give equal scores on the same hardware."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The base model
    base: str = Field(min_length=1, description="hub id or local folder of the base model")
    revision: str | None = Field(None, description="commit, branch or tag of a hub model; null: its default branch")
    trust_remote_code: bool = Field(False, description="run the code that the base's repository brings")
    task: str | None = Field(None, description="task text of an instruct prompt, the base's own or its family's")
    query_prompt: str | None = Field(
        None,
        description="text before each query, or the name of a prompt of the base's; null: what its files or family say",
    )
    passage_prompt: str | None = Field(None, description="text before each passage; null: likewise")
    pooling: Literal["mean", "cls", "lasttoken"] | None = Field(
        None, description="how token vectors become one; null: what the base's files or family say"
    )
    max_length: int | None = Field(None, ge=4, description="tokens, prompt included; null: the base's own maximum")

    # What is trained
    method: Method = Field(
        "lora", description="lora: an adapter; full: every weight; none: the base as it is, evaluated only"
    )
    targets: str = Field(
        "qv",
        description="LoRA targets by meaning: q, k, v, o, ffn, or qk, qv, qkv, attention, all-linear",
        json_schema_extra=ADAPTED,
    )
    last_n: int | None = Field(
        None, ge=1, description="adapt the last n layers only; null: all layers", json_schema_extra=TRAINED
    )
    r: int = Field(16, ge=1, description="LoRA rank", json_schema_extra=ADAPTED)
    alpha: float = Field(
        32.0,
        gt=0,
        description="LoRA scale: the update is multiplied by alpha / r, with rsLoRA by alpha / sqrt(r)",
        json_schema_extra=ADAPTED,
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the adapter's input", json_schema_extra=ADAPTED)
    rslora: bool = Field(False, description="rank-stabilised scaling (arXiv 2312.03732)", json_schema_extra=ADAPTED)
    dora: bool = Field(False, description="weight-decomposed adaptation (arXiv 2402.09353)", json_schema_extra=ADAPTED)

    # How it is trained
    lr: float = Field(5e-5, gt=0, description="peak learning rate", json_schema_extra=TRAINED)
    epochs: float = Field(1.0, gt=0, description="passes over the training pairs", json_schema_extra=TRAINED)
    batch_size: int = Field(
        32, ge=2, description="pairs per optimizer step, over all devices", json_schema_extra=TRAINED
    )
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises", json_schema_extra=TRAINED
    )
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="learning rate after warm-up", json_schema_extra=TRAINED
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW", json_schema_extra=TRAINED)
    max_grad_norm: float = Field(
        1.0, gt=0, description="longer gradients are scaled down to it", json_schema_extra=TRAINED
    )
    batches: BatchStrategy = Field(
        "in_batch", description="how batches are composed: trainables/batches/sampler.py", json_schema_extra=TRAINED
    )
    mixed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="mixed: share of the batches that are clustered",
        json_schema_extra=_used_when(batches=["mixed"]),
    )
    refresh: bool = Field(
        False,
        description="clustered, mixed: embed the training pairs anew each epoch with the model so far",
        json_schema_extra=_used_when(batches=["clustered", "mixed"]),
    )
    hard_negatives: int = Field(
        1,
        ge=1,
        description="negatives for each pair: the data's own in every strategy, more of them with mined",
        json_schema_extra=_used_when(batches=["mined"]),
    )
    margin: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="mined: a negative scores below (1 - margin) x the positive (arXiv 2407.15831)",
        json_schema_extra=_used_when(batches=["mined"]),
    )
    loss: Loss = Field(
        "mnrl",
        description="mnrl: anchor to passages; mnrl_symmetric: both directions; gist: guided by the base",
        json_schema_extra=TRAINED,
    )
    temperature: float = Field(
        0.05, gt=0, description="cosines are divided by it in the loss", json_schema_extra=TRAINED
    )
    matryoshka: tuple[int, ...] = Field(
        (), description="embedding sizes that are trained beside the full one", json_schema_extra=TRAINED
    )

    # How it is run
    rungs: int = Field(
        4,
        ge=1,
        description="dev evaluations, at equal shares of training; a search may stop the trial at all but the last",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: the fastest that the device computes natively"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="auto: the fastest that the base, the number format and the device allow"
    )
    gradient_checkpointing: bool = Field(False, description="less memory for about a third more time")
    micro_batch_tokens: int | None = Field(
        None, ge=64, description="cached loss: tokens held in memory at once (arXiv 2101.06983)"
    )
    seed: int = Field(42, ge=0, description="of batches, adapter and dropout; a spec gives it at the top level")

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


# Of a TrialConfig: they say how texts are embedded and which pairs meet in a batch. A classifier does neither.
RETRIEVAL_ONLY = frozenset(
    {
        "task",
        "query_prompt",
        "passage_prompt",
        "pooling",
        "batches",
        "mixed_share",
        "refresh",
        "hard_negatives",
        "margin",
        "loss",
        "temperature",
        "matryoshka",
    }
)


class ClassifierConfig(TrialConfig):
    """One trial of a classification. Its other fields are those of a retrieval trial, without what embeds and ranks."""

    method: Literal["lora", "full"] = Field(  # an untrained head classifies nothing
        "lora", description="lora: an adapter and the head; full: every weight"
    )

    # The classifier
    labels: tuple[str, ...] = Field((), description="names of the classes, in the order of the logits; the data's")
    head: Literal["fair", "as_published"] = Field(
        "fair",
        description="fair: every layer above the encoder is trained, the pooler too; as_published: with LoRA what PEFT "
        "trains by default, which leaves DeBERTa's and BERT's pooler as it is",
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="balanced: a class counts by rows / (classes x its rows); null: by its rows"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")

    @model_serializer(mode="wrap")
    def _without_retrieval(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in RETRIEVAL_ONLY}


def config_of(document: Mapping[str, Any]) -> TrialConfig:
    """The configuration of a trial, of whichever task, from what `model_dump` made of it."""
    return (ClassifierConfig if "head" in document else TrialConfig).model_validate(document)
