"""The YAML file of a search -> a SearchSpec, checked whole before anything heavy is imported.

A sparse, commented file comes in; `spec.json` in the run's folder holds every default written out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from evaluation.errors import InputError
from search.paths import RunFolder
from search.spec.dimensions import Dimension, default, did_you_mean
from search.spec.local_bases import found_at, with_bases
from search.spec.sections import ClassificationSpec, Origin, SearchSpec, StartFromSpec
from search.spec.space import Space
from search.spec.starts import starts_from
from search.storage.where import Where, spec_file

TASKS: dict[str, type[SearchSpec]] = {"retrieval": SearchSpec, "classification": ClassificationSpec}


def load_spec(path: Path, base: str | None = None, resumed: Where | None = None) -> SearchSpec:
    """Read a spec, YAML or JSON, check it whole and write its defaults out.

    Args:
        path: of the file.
        base: in place of the spec's base, as `--base` does on the command line.
        resumed: where runs are kept, on a resume: a search that began there keeps the starting points that it had.

    Raises:
        InputError: no such file, no YAML, an unknown key, a wrong type, an empty or impossible space, a starting point
            outside the space. The message is one line: file, key, what was expected.
    """
    raw = _read(path)
    if base is not None:
        raw["space"] = {**(raw.get("space") or {}), "base": base}
    if path != RunFolder(path.parent).spec:
        return _validated(raw, path, path.parent, {}, resumed)
    # A run's own spec.json: what it records about the run is no part of the spec.
    own = {key: raw[key] for key in SearchSpec.model_fields if key in raw}
    return _validated(own, path, Path(raw.get("folder", path.parent)), raw.get("record", {}), resumed)


def spec_from(document: Mapping[str, Any], folder: Path | None = None, resumed: Where | None = None) -> SearchSpec:
    """A spec from what its YAML file would hold.

    Args:
        document: the keys; without `name` it is called "spec".
        folder: where its relative paths start; None: the current folder.
        resumed: as load_spec.

    Raises:
        InputError: as load_spec.
    """
    return _validated(dict(document), Path("spec"), folder or Path.cwd(), {}, resumed)


def _validated(
    raw: dict[str, Any], path: Path, folder: Path, record: dict[str, Any], resumed: Where | None
) -> SearchSpec:
    """The checked spec. `path` names it in errors, and in its absence gives the search its name."""
    if isinstance(earlier := raw.get("continue_from"), str) and raw.get("task") != "classification":
        best, space = _best_model(folder / earlier, path), raw.get("space") or {}
        if space.get("base", best) != best:
            raise InputError(
                f"{path}: space.base: {space['base']!r} beside continue_from, whose best model is the base; expected "
                "one of the two"
            )
        raw["space"] = {"base": best, **space}
    model = TASKS.get(str(raw.get("task", "retrieval")))
    if model is None:
        raise InputError(f"{path}: task: expected {' or '.join(TASKS)}, got {raw['task']!r}")
    beside: dict[str, str] = {}
    raw = with_bases(raw, lambda base: _absolute(base, folder, beside))
    try:
        spec = model.model_validate(raw, context=Origin(folder.resolve(), record, tuple(beside.values())))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, model)}") from None
    if not spec.name:
        spec = spec.model_copy(update={"name": path.stem})
    if not re.fullmatch(r"[\w.-]{1,100}", spec.name) or spec.name.startswith("."):
        raise InputError(f"{path}: name: {spec.name!r} names a folder; expected letters, digits, '_', '-' and '.'")
    try:
        return _checked(spec, resumed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _absolute(base: str, folder: Path, beside: dict[str, str]) -> str:
    """The base, as an absolute path where it is a folder beside the spec, which is then noted."""
    if (found := found_at(base, folder)) is None:
        return base
    return beside.setdefault(base, str(found.resolve()))


def _best_model(run: Path, spec: Path) -> str:
    if not (RunFolder(run).best / "modules.json").is_file():
        raise InputError(f"{spec}: continue_from: {run} holds no best/; expected the folder of a search that has ended")
    return str(RunFolder(run).best.resolve())


def _checked(spec: SearchSpec, resumed: Where | None) -> SearchSpec:
    """The spec once its parts are known to fit each other, with the starting points of an earlier run written out."""
    space = spec.parsed_space
    if spec.minimize and spec.pruner.name != "none":
        raise InputError(
            f"pruner.name: {spec.pruner.name} beside minimize: with two objectives no trial is worse than another "
            "before its end; expected none"
        )
    if spec.pruner.name == "patient" and spec.pruner.patience > (most := space.rungs - 3):
        raise InputError(
            f"pruner.patience: {spec.pruner.patience} with {space.rungs} rungs forgives every rung at which a trial "
            f"could be stopped; expected at most {max(most, 0)}, and 3 rungs or more"
        )
    if spec.start_from is not None:
        began = None if resumed is None else spec_file(resumed, spec.name)
        spec = _with_starts(spec, spec.start_from, space, began)
    if not space.searched:
        raise InputError("space: nothing to search, every field has one value; expected a list or a range")
    if next(space.configs(), None) is None:
        if not spec.constraints:
            space.at({})  # says what cannot be
        raise InputError("constraints: no configuration of the space meets them")
    _named_code_only(space)
    _shared_out(space, spec.resources.workers)
    for i, point in enumerate(spec.start):
        space.point(point, f"start[{i}]")
    if spec.sampler.name == "grid":
        space.grid()
    if spec.sampler.name == "gp":
        space.require_unconditional("sampler gp")
        if spec.constraints:
            raise InputError(
                "constraints: sampler gp cannot learn them and would propose what they forbid; expected tpe"
            )
    return spec


def _with_starts(spec: SearchSpec, earlier: StartFromSpec, space: Space, began: Path | None) -> SearchSpec:
    """The spec with the best of the earlier run written out; those with which this search began, where it has begun.

    The earlier run may have grown since, or be gone.

    Raises:
        InputError: the earlier run holds nothing to start from, or this search began with another.
    """
    if began is None or not began.is_file():
        points = starts_from(spec.folder / earlier.run, space, earlier.top)
        start = [*spec.start, *(point for point in points if point not in spec.start)]
    else:
        stored = _read(began)
        now, before = earlier.model_dump(), stored["record"].get("start_from")  # versions before did not record it
        if before not in (None, now):
            raise InputError(f"start_from: was {before} when the search began and is now {now}; expected the same")
        same = stored["start"][: len(spec.start)] == spec.start
        start = stored["start"] if same else spec.start  # what is not the same is refused where all keys are compared
    spec = spec.model_copy(update={"start": start, "start_from": None})
    spec._start_from = earlier
    return spec


def _shared_out(space: Space, workers: int) -> None:
    """Check that the workers of a trial can share out its batches evenly.

    Raises:
        InputError: a batch size that is no multiple of them.
    """
    unsearched = Dimension("batch_size", values=(default("batch_size"),))
    sizes = [dimension for dimension in space.dimensions if dimension.name == "batch_size"] or [unsearched]
    for dimension in sizes:
        # Of a range, the ends and the step; without a step every whole number between.
        for value in dimension.values or (*dimension.corners(), dimension.step or 1):
            if value % workers:
                raise InputError(
                    f"space.batch_size: {dimension}, expected multiples of {workers}, the workers of a trial"
                )


def _named_code_only(space: Space) -> None:
    """Running a base's own code is decided for that base, never for whatever else the space names.

    Raises:
        InputError: trust_remote_code is true for several bases at once.
    """
    if len({config.base for config in space.configs()}) == 1:
        return
    if any(d.name == "trust_remote_code" and d.contains(True) and "base" not in d.when for d in space.dimensions):
        raise InputError(
            "space.trust_remote_code: true for several bases; "
            "expected [{when: {base: THE_ONE}, values: [true]}, {values: [false]}]"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a search spec (YAML)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        raw = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: not {'JSON' if path.suffix == '.json' else 'YAML'}: {error}".replace("\n", " ")
        ) from None
    if not isinstance(raw, Mapping):
        raise InputError(f"{path}: expected keys such as data and space, got {type(raw).__name__}")
    return dict(raw)


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            keys.add(key if isinstance(key, str | int | float) else str(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error of a validation as `key.path: what was expected`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "tagged-")))
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key{did_you_mean(str(first['loc'][-1]), _keys_beside(model, first['loc']))}"
    if first["type"] == "missing":
        return f"{where}: missing"
    message = first["msg"].removeprefix("Value error, ")
    if not where:  # what is wrong with several keys together says itself where it is
        return str(message)
    shown = repr(first["input"])
    got = f", got {shown if len(shown) <= 60 else shown[:57] + '...'}"
    return f"{where}: {message[0].lower()}{message[1:]}{got}"


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `location` knows."""
    for part in location[:-1]:
        info = model.model_fields.get(str(part))
        annotation = info.annotation if info else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
