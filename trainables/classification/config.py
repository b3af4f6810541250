"""LabelledDataConfig: the `data:` section of a spec with task classification."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainables.data.config import Files, Hub, Template, check_given

MAX_LABELS = 1000  # more are no classes: a model would learn none of them from rows that people wrote


class TextColumns(BaseModel):
    """Which columns of the source hold what. A template such as "{title}, {body}" joins several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Template = Field("text", description="the text, or the first of a pair")
    text_pair: Template | None = Field(None, description="the second text of a pair; null: single texts")
    label: str = Field("label", min_length=1, description="the class: a name, or a whole number")
    group: str | None = Field(
        None, description="rows of one group stay together, such as those of a premise; null: rows that share a text"
    )
    split: str | None = Field(None, description="train, dev or test; null: split")


class TextDrop(BaseModel):
    """Rules by which rows are dropped. A row with a missing or blank text or label always is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_text: int = Field(1, ge=1, description="characters, white space folded; a row with a shorter text is dropped")
    duplicates: bool = Field(True, description="drop a row whose texts and label an earlier row of its part has")


class TextSplit(BaseModel):
    """How rows are divided into training, dev and test. See trainables/classification/splits.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["auto", "group", "column", "given"] = Field(
        "auto",
        description="group: by a hash of the group, each label giving its share; column: the split column; given: "
        "train, dev and test files; auto: given where the source is several files, else column where there is one, "
        "else group",
    )
    dev: float = Field(0.15, gt=0, lt=1, description="share of each label's groups that are not test")
    test: float = Field(0.15, gt=0, lt=1, description="share of each label's groups")


class LabelledDataConfig(BaseModel):
    """The labelled texts of a search with task classification. Relative paths start at the spec's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | Files | Hub = Field(
        description=".jsonl, .json, .csv, .tsv or .parquet file, folder of datasets' save_to_disk, "
        "{train: ..., dev: ..., test: ...}, or {hub: owner/name}"
    )
    columns: TextColumns = TextColumns()
    drop: TextDrop = TextDrop()
    split: TextSplit = TextSplit()
    labels: tuple[str, ...] | None = Field(
        None, description="the classes in the order of the model's outputs; null: those of the data, sorted"
    )
    max_rows: int | None = Field(None, ge=1, description="read so many rows from the top of each file; null: all")

    @field_validator("labels")
    @classmethod
    def _several(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(labels) < 2 or len(set(labels)) < len(labels) or len(labels) > MAX_LABELS):
            raise ValueError(f"2 to {MAX_LABELS:,} labels, each once")
        return labels

    @model_validator(mode="after")
    def _check(self) -> LabelledDataConfig:
        check_given(self.source, self.split.by)
        return self
