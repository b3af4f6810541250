"""`--smoke`: the whole search of a spec on tiny stand-ins of its bases and a slice of its data.

It checks a spec and a cluster before GPU hours are spent: every field of the space, the data, the workers, the merge
and the benchmark run as they will. Its scores mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.errors import InputError
from search.spec.dimensions import FIELDS, Dimension
from search.spec.sections import SearchSpec
from search.spec.space import Space
from search.spec.task_data import texts_of

MAX_ROWS = 600  # of each source file
MAX_LENGTH = 32  # tokens
MAX_TRIALS = 6
TEXTS = 2000  # that a stand-in's tokenizer is trained on


def smoke_name(spec: SearchSpec) -> str:
    """What the smoke search of a spec is called, and its folder."""
    return f"{spec.name}-smoke"


def smoke_spec(spec: SearchSpec, folder: Path) -> SearchSpec:
    """The spec with its bases replaced by stand-ins, made in `folder`, and everything that costs time cut down.

    Raises:
        InputError: the data cannot be read, nothing is known of a base, or a `when` asks for a value that is cut.
    """
    from trainables.model.stand_ins import make_stand_in

    space = spec.parsed_space
    rows = min(spec.data.max_rows or MAX_ROWS, MAX_ROWS)
    texts = list(texts_of(spec, rows, TEXTS))
    configs = {config.base: config for config in space.configs()}
    paths = {base: str(make_stand_in(config, texts, folder).resolve()) for base, config in configs.items()}
    section: dict[str, Any] = _replaced(spec.space, paths)
    section["max_length"] = min([MAX_LENGTH, *_numbers(space.dimensions, "max_length")])
    workers = spec.resources.workers
    batch = min([16, *_numbers(space.dimensions, "batch_size")])
    section["batch_size"] = max(workers, batch // workers * workers)
    section["epochs"] = 1
    for large in ("matryoshka", "micro_batch_tokens", "revision", "attention"):
        section.pop(large, None)  # sizes and files that a stand-in does not have
    start = [{k: v for k, v in point.items() if _searched(section, k)} for point in _replaced(spec.start, paths)]
    try:
        possible = next(Space.parse(section, spec.seed, spec.constraints, spec.kind).configs(), None)
    except InputError as error:
        raise InputError(f"--smoke: {error}") from None
    first = [{"base": path} for path in paths.values()] if len(paths) > 1 else []
    smoke = spec.model_copy(
        update={
            "name": smoke_name(spec),
            "data": spec.data.model_copy(update={"max_rows": rows}),
            "space": section,
            "constraints": spec.constraints if possible else [],  # the cuts above may leave nothing that meets them
            "start": (first + start)[: max(MAX_TRIALS, len(first))],
            "budget": spec.budget.model_copy(update={"trials": max(MAX_TRIALS, len(first)), "hours": None}),
            # A GPU where there is one: stand-ins need none, and a laptop should be able to check a spec for a cluster.
            "resources": spec.resources.model_copy(update={"gpus": None} if spec.resources.gpus else {}),
        }
    )
    smoke._record = {}  # other models and fewer rows: there is nothing to hold against a recorded run
    return smoke


def _replaced(value: Any, names: dict[str, str]) -> Any:
    """The same document with each base's name replaced by its stand-in's path."""
    if isinstance(value, dict):
        return {key: _replaced(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _numbers(dimensions: tuple[Dimension, ...], name: str) -> list[int]:
    return [value for d in dimensions if d.name == name for value in d.corners() if isinstance(value, int)]


def _searched(section: dict[str, Any], name: str) -> bool:
    """Whether the cut-down space still searches a field."""
    value = section.get(name)
    return isinstance(value, dict) or (isinstance(value, list) and len(value) > 1) or name not in FIELDS
