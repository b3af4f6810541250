"""Write the tables of docs/spec.md from the models that read a spec, so that no key is told in two places.

    python docs/make_spec_guide.py

Only the part of docs/spec.md between the two markers is written anew; the rest is prose. A test holds that the
committed page is the one that this script writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evaluation.files import write_whole
from search.spec.dimensions import IMPLIED
from search.spec.sections import ClassificationSpec, SearchSpec
from trainables.classification.config import LabelledDataConfig
from trainables.config import RETRIEVAL_ONLY, ClassifierConfig, TrialConfig

PAGE = Path(__file__).with_name("spec.md")
BEGIN = "<!-- Tables: written by docs/make_spec_guide.py from the models. Change those, not this. -->"
END = "<!-- End of the tables. -->"
WORDS = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Path: "path", dict: "keys"}
GROUP = re.compile(r"\n\n    # (.+)\n(?=    \w+:)")  # a comment over a paragraph of fields


def tables() -> str:
    """Every table, a section of the spec each, in the order of the models."""
    parts = list(_section("", SearchSpec))
    space = [f"### `space`: the fields of a trial\n\n{_sentence(TrialConfig)}"]
    for title, names in _groups(TrialConfig):
        fields = {name: TrialConfig.model_fields[name] for name in names}
        space.append(f"#### {title}\n\n{_table('space', fields, IMPLIED)}")
    return "\n\n".join([*parts, *space, *_classification()])


def _classification() -> Iterator[str]:
    """What a spec with task classification has instead, and beside."""
    own = {name: ClassificationSpec.model_fields[name] for name in ("task", "metric")}
    yield f"### Task classification\n\n{_sentence(ClassificationSpec)}\n\n{_table('', own)}"
    yield from _section("data (classification)", LabelledDataConfig)
    left_out = ", ".join(f"`{name}`" for name in TrialConfig.model_fields if name in RETRIEVAL_ONLY)
    yield (
        "### `space (classification)`\n\nThe fields of a trial without those that embed and rank "
        f"({left_out}), without method `none`, and with"
    )
    for title, names in _groups(ClassifierConfig):
        fields = {name: ClassifierConfig.model_fields[name] for name in names if name != "labels"}
        yield f"#### {title}\n\n{_table('space', fields, IMPLIED)}"


def page(text: str) -> str:
    """docs/spec.md with its tables as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    """The table of a model, then those of the models within it."""
    title = f"### `{path}`" if path else "### Top level"
    yield f"{title}\n\n{_sentence(model)}\n\n{_table(path, model.model_fields)}"
    for name, info in model.model_fields.items():
        models = [part for part in _parts(info.annotation) if _is_model(part)]
        for one in models:
            yield from _section(_inner(path, name, one, len(models)), one)


def _table(path: str, fields: dict[str, FieldInfo], searched: dict[str, Any] | None = None) -> str:
    columns = ["key", "takes", "default", "meaning"] + (["searched where"] if searched is not None else [])
    rows = [columns, ["---"] * len(columns)]
    for name, info in fields.items():
        row = [f"`{name}`", _takes(path, name, info), _default(info), _escaped(_meaning(path, name, info))]
        if searched is not None:
            row.append("; ".join(f"{key}: {', '.join(v)}" for key, v in searched.get(name, {}).items()))
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _takes(path: str, name: str, info: FieldInfo) -> str:
    if name == "space" and not path:
        return "fields of a trial"
    return " or ".join(_type(path, name, part, info) for part in _parts(info.annotation))


def _type(path: str, name: str, part: Any, info: FieldInfo) -> str:
    if get_origin(part) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(part))
    if get_origin(part) in (list, tuple):
        item = next(iter(get_args(part)))
        if get_origin(item) is Literal:
            return f"list of {_type(path, name, item, info)}"
        return f"list of {'`{...}`' if get_origin(item) is dict else {int: 'whole numbers', str: 'texts'}[item]}"
    if _is_model(part):
        needed = [key for key, inner in part.model_fields.items() if inner.is_required()]
        return f"`{{{', '.join([*needed, '...'])}}}`"
    limits = _limits(info) if part in (int, float) else ""
    return WORDS[get_origin(part) or part] + (f" {limits}" if limits else "")


def _limits(info: FieldInfo) -> str:
    """The limits of a number: `from 1`, `above 0, below 1`."""
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    found = [f"{words[key]} {getattr(limit, key):g}" for limit in info.metadata for key in words if hasattr(limit, key)]
    return ", ".join(found).replace(", to", " to")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else "empty"


def _meaning(path: str, name: str, info: FieldInfo) -> str:
    models = [part for part in _parts(info.annotation) if _is_model(part)]
    if info.description is None and not models:
        raise ValueError(f"{path}.{name}: no description; expected Field(..., description=...)")
    headings = [_inner(path, name, one, len(models)) for one in models]
    keys = ", ".join(f"[{heading}](#{_slug(heading)})" for heading in headings)
    own = info.description or _sentence(models[0]).split(". ")[0].removesuffix(".")
    return own + (f"; keys: {keys}" if keys else "")


def _inner(path: str, name: str, model: type[BaseModel], several: int) -> str:
    """The heading of a model within a model: where it stands in the spec, and which of several it is."""
    return ".".join(filter(None, (path, name))) + (f": {model.__name__.lower()}" if several > 1 else "")


def _slug(heading: str) -> str:
    """The address of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _groups(model: type[BaseModel]) -> Iterator[tuple[str, list[str]]]:
    """The comments over the paragraphs of a model's fields, each with its fields."""
    _, *rest = GROUP.split(inspect.getsource(model))
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        yield title, [name for name in re.findall(r"^    (\w+):", body, re.MULTILINE) if name in model.model_fields]


def _parts(annotation: Any) -> list[Any]:
    """What a field may be: the members of a union but None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [inner for part in get_args(annotation) if part is not NoneType for inner in _parts(part)]


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _sentence(model: type[BaseModel]) -> str:
    return " ".join(inspect.getdoc(model).split()) if model.__doc__ else ""  # type: ignore[union-attr]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    write_whole(PAGE, page(PAGE.read_text(encoding="utf-8")))
