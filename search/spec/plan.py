"""`embtune plan`: what a search would do, without weights and without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.errors import InputError
from search.spec.load import load_spec
from search.spec.sections import ClassificationSpec, SearchSpec
from search.spec.task_data import check_data, print_data, with_labels
from trainables.bases.token_counts import token_counts
from trainables.classification.report import LabelReport
from trainables.data.pairs import read_pairs
from trainables.data.report import DataReport
from trainables.data.rows import Pair
from trainables.data.sources import read_once
from trainables.plan.longest import LongestTexts
from trainables.plan.memory import share_of_memory
from trainables.plan.rows import plan_notes, plan_rows, plan_table


def plan(path: Path, *, base: str | None, as_json: bool, console: Console) -> None:
    """Print the data report, the space, sizes and memory of its configurations, and the starting points.

    The data may be missing: the plan then says so and leaves out what depends on it.

    Raises:
        InputError: the spec is wrong, or a base cannot be resolved.
    """
    spec = load_spec(path, base)
    report, missing, texts = _data(spec)
    if isinstance(spec, ClassificationSpec) and isinstance(report, LabelReport):  # its labels size the head
        spec = with_labels(spec, report.labels)
    space = spec.parsed_space
    pairs = report.kept["train"] if report is not None else None
    gpus = float(torch.cuda.is_available()) if spec.resources.gpus is None else spec.resources.gpus
    kind: Literal["cpu", "cuda"] = "cuda" if gpus else "cpu"
    memory = share_of_memory(spec.resources.memory_gb, gpus)
    negatives = report.negatives if isinstance(report, DataReport) else None
    rows = plan_rows(space.configs(), pairs, kind, memory, spec.resources.workers, negatives, texts)
    starts = [_start(spec, start) for start in spec.start]
    notes = plan_notes(rows)
    if isinstance(spec, ClassificationSpec) and spec.data.labels is None:
        notes.append("the labels are unknown without the data: heads are counted for two (data.labels names them)")
    if as_json:
        document = {
            "name": spec.name,
            "data": None if report is None else report.model_dump(mode="json"),
            "data_missing": missing,
            "space": {dimension.key: str(dimension) for dimension in space.dimensions},
            "searched": [dimension.key for dimension in space.searched],
            "configurations": [row.as_dict() for row in rows],
            "start": starts,
            "notes": notes,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return
    if report is None:
        console.print(f"[yellow]data[/]: {escape(missing)}; steps are unknown", highlight=False)
    else:
        print_data(report, console)
    table = Table("field", "searched", title="Search space", title_justify="left")
    for dimension in space.dimensions:
        table.add_row(dimension.key, escape(str(dimension)), style="" if not dimension.constant else "dim")
    console.print(table)
    console.print(plan_table(rows, title="Configurations that differ in size", width=console.width))
    if starts:
        console.print(_start_table(starts))
    for note in notes:
        console.print(f"[yellow]note[/]: {escape(note)}", highlight=False)
    budget = spec.budget
    console.print(f"{budget.trials} trials, sampler {spec.sampler.name}, pruner {spec.pruner.name}", highlight=False)


@read_once()
def _data(spec: SearchSpec) -> tuple[DataReport | LabelReport | None, str, LongestTexts | None]:
    """The data report and the longest texts, or why there are none.

    A plan may come before its data, but not beside data that is wrong.
    """
    source = spec.data.source
    here = isinstance(source, str) and (spec.folder / source).exists()
    try:
        tokens = token_counts(next(spec.parsed_space.configs()))
        report = check_data(spec, tokens)
    except InputError as error:
        return None, str(error), None
    if report.unusable is None:
        if isinstance(spec, ClassificationSpec):
            return report, "", None
        rows = read_pairs(spec.data, spec.folder, spec.earlier_data)
        pairs = ((row.anchor, (row.positive, *row.negatives)) for row in rows if isinstance(row, Pair))
        return report, "", LongestTexts.of(pairs)
    if here:
        raise InputError(f"data: {report.unusable}")
    return None, report.unusable, None


def _start(spec: SearchSpec, start: Mapping[str, Any]) -> dict[str, Any]:
    """A starting point with its size."""
    config = spec.parsed_space.at(start)
    (row,) = plan_rows([config])
    return {**start, "trainable": row.trainable, "total": row.total}


def _start_table(starts: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for start in starts for name in start))
    table = Table(*names, title="Starting points, tried first", title_justify="left")
    for start in starts:
        sizes = ("trainable", "total")
        table.add_row(*(f"{start[n]:,}" if n in sizes and start[n] else str(start.get(n) or "") for n in names))
    return table
