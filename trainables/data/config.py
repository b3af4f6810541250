"""DataConfig: the `data:` section of a spec. Where the pairs come from, how rows are read, dropped and split."""

from __future__ import annotations

import functools
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


@functools.cache
def template_fields(template: str) -> tuple[str, ...]:
    """Names of the columns that a template reads; a text without braces names one column.

    >>> template_fields("{input}, {output}")
    ('input', 'output')
    >>> template_fields("Titre")
    ('Titre',)

    Raises:
        ValueError: braces that do not match, a conversion (`{a!r}`), a format (`{a:>3}`), an empty name.
    """
    if "{" not in template and "}" not in template:
        return (template,)
    fields = []
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or form or conversion:
            raise ValueError(f"template {template!r}: each {{...}} holds the name of one column and nothing else")
        fields.append(name)
    if not fields:
        raise ValueError(f"template {template!r} names no column")
    return tuple(fields)


def _checked(template: str) -> str:
    template_fields(template)
    return template


Template = Annotated[str, Field(min_length=1), AfterValidator(_checked)]


class Columns(BaseModel):
    """Which columns of the source hold what. A template such as "{input}, {output}" joins several.

    What is not given is taken from the column of that name where the source has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchor: Template = Field("anchor", description="the query")
    positive: Template = Field("positive", description="the passage that answers it")
    negative: str | None = Field(None, description="passages that do not answer it, one text or a list; null: negative")
    concept: str | None = Field(None, description="rows of one concept stay together; null: concept or cluster_id")
    kind: str | None = Field(None, description="definition, context, ...; null: kind")
    domain: str | None = Field(None, description="domain or list of domains, the first counts; null: domain or domains")
    split: str | None = Field(None, description="train, dev or test; null: split")


class Drop(BaseModel):
    """Rules by which rows are dropped. A row with a missing or blank anchor or positive always is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_anchor: int = Field(1, ge=1, description="characters, white space folded; shorter anchors are dropped")
    min_positive: int = Field(1, ge=1, description="characters, white space folded; shorter passages are dropped")
    duplicates: bool = Field(True, description="drop a row whose anchor, positive and concept an earlier row has")


class Split(BaseModel):
    """How rows are divided into training, dev and test. See trainables/data/splits.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["auto", "concept", "query", "column", "given"] = Field(
        "auto",
        description="concept: a hash of the concept; query: a hash of the question, for new questions on passages that "
        "are known; column: the split column; given: train, dev and test files; "
        "auto: given where the source is several files, else column where there is one, else concept",
    )
    dev: float = Field(0.15, gt=0, lt=1, description="share of the concepts (by query: the questions) not in test")
    test: float = Field(0.15, gt=0, lt=1, description="share of all concepts (by query: of all questions)")


class Files(BaseModel):
    """One file for each part. A part without a file is cut from train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str = Field(description="file of the training rows")
    dev: str | None = Field(None, description="file of the rows that choose between trials; null: cut from train")
    test: str | None = Field(None, description="file of the rows that judge the winner; null: cut from train")


class Hub(BaseModel):
    """A data set on the Hugging Face hub, read as a stream. No code that it brings is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str = Field(description="owner/name")
    name: str | None = Field(None, description="configuration of the data set")
    split: str | None = Field(None, description="one split of it; null: its train, validation and test as given parts")
    revision: str | None = Field(None, description="commit, branch or tag; null: its default branch")


def check_given(source: str | Files | Hub, by: str) -> None:
    """Check that a source which is to be split as it is given is given in parts.

    Raises:
        ValueError: it is one split of a data set.
    """
    if by == "given" and isinstance(source, Hub) and source.split is not None:
        raise ValueError("split.by: given needs source with train, dev and test, got one split")


class DataConfig(BaseModel):
    """The data of a search. Relative paths start at the spec's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | Files | Hub = Field(
        description=".jsonl, .json, .csv, .tsv or .parquet file, BEIR folder, folder of datasets' save_to_disk, "
        "{train: ..., dev: ..., test: ...}, or {hub: owner/name}"
    )
    columns: Columns = Columns()
    drop: Drop = Drop()
    split: Split = Split()
    shared: Literal["keep", "leave_out"] | None = Field(
        None,
        description="passages and concepts that stand in several parts. keep: the parts stay as they are, only a "
        "question is never trained on and tested; leave_out: their rows leave training, then dev; "
        "null: keep between parts that the source names and with split.by: query, else leave_out",
    )
    protocol: Literal["concept", "definition"] = Field(
        "concept",
        description="concept: each passage of the anchor's concept is relevant; definition: only its rows of kind "
        "definition are",
    )
    distractors: bool = Field(
        True,
        description="search dev and test queries among the passages of every part, and of a BEIR folder among its "
        "whole corpus, as in a real index; false: among the part's own passages, where scores are higher than in use",
    )
    min_grade: int = Field(
        1, ge=1, description="of a BEIR folder: train on pairs of this grade and more; dev and test keep all from 1"
    )
    max_rows: int | None = Field(None, ge=1, description="read so many rows from the top of each file; null: all")

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        check_given(self.source, self.split.by)
        if self.split.by == "query" and self.shared == "leave_out":
            raise ValueError(
                "shared: leave_out takes away the known passages that split.by: query asks new questions on; "
                "expected keep, or split.by: concept"
            )
        return self
