"""One field's domain in the search space, and how the `space:` section writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.errors import InputError
from trainables.config import RETRIEVAL_ONLY, ClassifierConfig, TrialConfig

if TYPE_CHECKING:
    import optuna

FIELDS = ClassifierConfig.model_fields | TrialConfig.model_fields  # of every task
RATIO = "alpha_ratio"
RANGE_KEYS = {"low", "high", "log", "step"}
UNSEARCHED = {
    "rungs": "rungs compare trials, so all trials share them; expected one whole number",
    "seed": "trials share the spec's seed; expected it at the top level",
    "labels": "they are the data's; expected them in data.labels, or nowhere",
}


def searched_fields(kind: type[TrialConfig]) -> list[str]:
    """The fields of a task's trials that a space may hold."""
    left_out = {"labels", *RETRIEVAL_ONLY} if issubclass(kind, ClassifierConfig) else set()
    return [name for name in kind.model_fields if name not in left_out]


def used_when(name: str) -> dict[str, tuple[Any, ...]]:
    """The values of other fields with which a field has an effect; a spec need not say so. Empty: it always has."""
    extra = FIELDS["alpha" if name == RATIO else name].json_schema_extra
    conditions: Any = extra.get("used_when", {}) if isinstance(extra, dict) else {}
    return {other: tuple(allowed) for other, allowed in conditions.items()}


# A field is asked for only where it has an effect.
IMPLIED = {name: conditions for name in (*FIELDS, RATIO) if (conditions := used_when(name))}


@dataclass(frozen=True)
class Dimension:
    """One field's domain under one condition: `values` of a constant or choice, else the range low..high."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def own(self) -> dict[str, tuple[Any, ...]]:
        """The conditions that the spec puts on it beside those which go without saying."""
        implied = IMPLIED.get(self.name, {})
        return {other: allowed for other, allowed in self.when.items() if implied.get(other) != allowed}

    @property
    def key(self) -> str:
        """Its name in the study: branches of one field are parameters of their own."""
        return "|".join([self.name, *(f"{k}={'/'.join(map(str, v))}" for k, v in sorted(self.own.items()))])

    @property
    def constant(self) -> bool:
        return len(self.values) == 1

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the dimension's condition holds for the fields chosen so far."""
        return all(chosen.get(name, default(name)) in allowed for name, allowed in self.when.items())

    def contains(self, value: Any) -> bool:
        if self.values:
            return (tuple(value) if isinstance(value, list) else value) in self.values
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-9

    def suggest(self, trial: optuna.Trial) -> Any:
        if self.constant:
            return self.values[0]
        if self.values:
            return decode(trial.suggest_categorical(self.key, [encode(value) for value in self.values]))
        if self.integer:
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def corners(self) -> tuple[Any, ...]:
        """Every value of a choice, the two ends of a range."""
        if self.values:
            return self.values
        ends = tuple(dict.fromkeys((self.low, self.high)))
        return tuple(int(end) for end in ends) if self.integer else ends

    def __str__(self) -> str:
        if self.constant:
            return str(self.values[0])
        if self.values:
            return " | ".join(map(str, self.values))
        ends = f"{self.corners()[0]:g} .. {self.corners()[-1]:g}"
        return ends + (" (log)" if self.log else "") + (f" step {self.step:g}" if self.step else "")


def encode(value: Any) -> Any:
    """A value as Optuna's categorical distribution holds it: lists as JSON, and so are texts that look like JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) or _looks_like_json(value) else value


def decode(value: Any) -> Any:
    if not _looks_like_json(value):
        return value
    document = json.loads(value)
    return tuple(document) if isinstance(document, list) else document


def _looks_like_json(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("[", '"'))


def in_use(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a field has an effect in a configuration: the rank of an adapter has none where there is no adapter."""
    return all(values[other] in allowed for other, allowed in IMPLIED.get(name, {}).items())


def default(name: str) -> Any:
    return FIELDS[name].default if name in FIELDS else None


def parse_field(name: str, value: Any, kind: type[TrialConfig] = TrialConfig) -> list[Dimension]:
    where = f"space.{name}"
    known = searched_fields(kind)
    if name in UNSEARCHED and not (name == "rungs" and isinstance(value, int)):
        raise InputError(f"{where}: {UNSEARCHED[name]}")
    if name not in known and name != RATIO:
        if name in FIELDS:
            other = "retrieval" if issubclass(kind, ClassifierConfig) else "classification"
            raise InputError(f"{where}: a field of task {other} alone; expected one of {', '.join(sorted(known))}")
        raise InputError(f"{where}: unknown field{did_you_mean(name, [*known, RATIO])}")
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _apart([_parse_domain(name, item, f"{where}[{i}]", kind) for i, item in enumerate(value)], where)
    return [_parse_domain(name, value, where, kind)]


def _apart(branches: list[Dimension], where: str) -> list[Dimension]:
    """The branches of a field.

    Raises:
        InputError: two hold in the same trials, so that the second would never be asked.
    """
    first: dict[str, int] = {}
    for i, branch in enumerate(branches):
        if first.setdefault(branch.key, i) != i:
            raise InputError(
                f"{where}[{i}]: holds in the same trials as {where}[{first[branch.key]}]; "
                "expected a `when` that tells them apart"
            )
    return branches


def _parse_domain(name: str, value: Any, where: str, kind: type[TrialConfig]) -> Dimension:
    when = dict(IMPLIED.get(name, {}))
    if name == "hard_negatives" and not isinstance(value, list | dict):
        when = {}  # a constant: every strategy trains on so many of the data's own negatives
    if isinstance(value, dict):
        unknown = sorted(set(value) - RANGE_KEYS - {"when", "values", "ratio"})
        if unknown:
            raise InputError(f"{where}.{unknown[0]}: unknown key; expected low, high, log, step, values or when")
        conditions = value.get("when", {})
        if not isinstance(conditions, dict):
            raise InputError(f"{where}.when: expected fields and their values, got {conditions!r}")
        for other, allowed in conditions.items():
            if other not in (known := searched_fields(kind)):
                raise InputError(f"{where}.when.{other}: unknown field{did_you_mean(other, known)}")
            when[other] = tuple(allowed) if isinstance(allowed, list) else (allowed,)
        if "values" in value:
            return _choice(name, value["values"], where, when, kind)
        return _range(name, value, where, when, kind)
    return _choice(name, value, where, when, kind)


def _choice(name: str, value: Any, where: str, when: dict[str, tuple[Any, ...]], kind: type[TrialConfig]) -> Dimension:
    values = tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else (value,)
    if not values:
        raise InputError(f"{where}: an empty list; expected at least one value")
    checked = tuple(_check_value(name, v, where, kind) for v in values)
    if len(set(checked)) < len(checked):
        raise InputError(f"{where}: a value stands twice in {value}; expected each once")
    return Dimension(name, values=checked, when=when)


def _range(
    name: str, value: dict[str, Any], where: str, when: dict[str, tuple[Any, ...]], kind: type[TrialConfig]
) -> Dimension:
    for key in ("low", "high"):
        if key not in value:
            raise InputError(f"{where}.{key}: missing; a range has low and high")
    low, high = (_check_value(name, value[key], f"{where}.{key}", kind) for key in ("low", "high"))
    for key, end in (("low", low), ("high", high)):
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise InputError(f"{where}.{key}: {name} is no number, so it has no range; expected a list of values")
    if low > high:
        raise InputError(f"{where}: low {low} is above high {high}")
    log, step = value.get("log", False), value.get("step")
    if not isinstance(log, bool):
        raise InputError(f"{where}.log: expected true or false, got {log!r}")
    if log and low <= 0:
        raise InputError(f"{where}.low: a log range starts above 0, got {low}")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step <= 0):
        raise InputError(f"{where}.step: expected a number above 0, got {step!r}")
    if step is not None and log:
        raise InputError(f"{where}.step: a log range has no step")
    if low == high:
        return Dimension(name, values=(low,), when=when)
    integer = name != RATIO and isinstance(low, int) and isinstance(high, int) and FIELDS[name].annotation is not float
    if integer and step is not None and step != int(step):
        raise InputError(f"{where}.step: {name} is a whole number, expected a whole step, got {step}")
    return Dimension(name, low=low, high=high, log=log, step=step, integer=integer, when=when)


def _check_value(name: str, value: Any, where: str, kind: type[TrialConfig]) -> Any:
    """The value as the trial's config holds it: `1e-4`, which YAML reads as text, becomes a number."""
    if name == RATIO:
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise InputError(f"{where}: expected a number above 0, got {value!r}")
        return float(value)
    try:
        # `base` is the one field without a default.
        return getattr(kind.model_validate({"base": "any", name: value}), name)
    except ValidationError as error:
        raise InputError(f"{where}: {first_error(error, with_field=False)}, got {value!r}") from None


def first_error(error: ValidationError, with_field: bool = True) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{'.'.join(map(str, first['loc']))}: {message}" if with_field and first["loc"] else message


def did_you_mean(name: str, known: list[str]) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of {', '.join(sorted(known))}"
