"""The search space: what a trial's configuration may be, read from the `space:` section of a spec.

Each key is a field of `TrialConfig` (or `alpha_ratio`, which sets alpha = ratio x r). Its value is

- a constant:              ``lr: 5e-5``
- a choice:                ``r: [8, 16, 32]``
- a range:                 ``lr: {low: 1e-5, high: 1e-3, log: true}`` or ``r: {low: 4, high: 64, step: 4}``
- branches, by condition:  ``lr: [{when: {method: full}, low: 1e-6, high: 5e-5, log: true}, {values: [1e-4, 1e-3]}]``

What only some trials use (the rank of an adapter, the share of a mixed strategy) is sampled in those trials only.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.errors import InputError
from trainables.config import TrialConfig

if TYPE_CHECKING:
    import optuna

FIELDS = TrialConfig.model_fields
RATIO = "alpha_ratio"
RANGE_KEYS = {"low", "high", "log", "step"}
UNSEARCHED = {
    "rungs": "rungs compare trials, so all trials share them; expected one whole number",
    "seed": "trials share the spec's seed; expected it at the top level",
}

# A field is asked for only where it has an effect; a spec need not say so.
ADAPTER_FIELDS = ("targets", "last_n", "r", "alpha", RATIO, "dropout", "rslora", "dora")
IMPLIED: dict[str, dict[str, tuple[Any, ...]]] = {
    **{name: {"method": ("lora",)} for name in ADAPTER_FIELDS},
    **{
        name: {"method": ("lora", "full")} for name in ("lr", "batch_size", "batches", "loss", "epochs", "weight_decay")
    },
    "temperature": {"method": ("lora", "full")},
    "warmup": {"method": ("lora", "full")},
    "mixed_share": {"batches": ("mixed",)},
    "refresh": {"batches": ("clustered", "mixed")},
    "hard_negatives": {"batches": ("mined",)},
    "margin": {"batches": ("mined",)},
}


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
    def key(self) -> str:
        """Its name in the study: branches of one field are parameters of their own."""
        implied = IMPLIED.get(self.name, {})
        own = [f"{k}={'/'.join(map(str, v))}" for k, v in sorted(self.when.items()) if implied.get(k) != v]
        return "|".join([self.name, *own])

    @property
    def constant(self) -> bool:
        return len(self.values) == 1

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the dimension's condition holds for the fields chosen so far."""
        return all(chosen.get(name, _default(name)) in allowed for name, allowed in self.when.items())

    def contains(self, value: Any) -> bool:
        if self.values:
            return value in self.values
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


@dataclass(frozen=True)
class Space:
    """All dimensions, each after those that its condition names."""

    dimensions: tuple[Dimension, ...]
    seed: int

    @classmethod
    def parse(cls, section: Mapping[str, Any], seed: int) -> Space:
        """Read the `space:` section.

        Raises:
            InputError: an unknown field, a value outside its field's domain, an empty choice, a condition that no
                value of the field meets, conditions in a circle; or nothing to train because `base` is missing.
        """
        if "base" not in section:
            raise InputError("space.base: missing; expected a hub id, a local folder, or a list of them")
        if "alpha" in section and RATIO in section:
            raise InputError(f"space.alpha: given beside space.{RATIO}; expected one of the two")
        dimensions = [dimension for name, value in section.items() for dimension in _parse_field(name, value)]
        by_name: dict[str, list[Dimension]] = {}
        for dimension in dimensions:
            by_name.setdefault(dimension.name, []).append(dimension)
        for dimension in dimensions:
            for name, allowed in dimension.when.items():
                if allowed == IMPLIED.get(dimension.name, {}).get(name):
                    continue
                domains = by_name.get(name, [Dimension(name, values=(_default(name),))])
                if not any(domain.contains(value) for domain in domains for value in allowed):
                    raise InputError(
                        f"space.{dimension.name}.when.{name}: no trial has {' or '.join(map(str, allowed))}"
                    )
        return cls(tuple(_ordered(by_name)), seed)

    def sample(self, trial: optuna.Trial) -> TrialConfig:
        """Ask the study's sampler for one configuration.

        Raises:
            InputError: the combination is infeasible (no trial can have it).
        """
        return self._assemble(lambda dimension: dimension.suggest(trial))

    def configs(self) -> Iterator[TrialConfig]:
        """One configuration for every combination of choices and ends of ranges of the fields that decide a model's
        size and memory; the other fields are at their first value."""
        sized = ("base", "method", "targets", "last_n", "r", "dora", "batch_size", "max_length")
        active = [d for d in self.dimensions if d.name in sized and not d.constant]
        seen = set()
        for combination in itertools.product(*(dimension.corners() for dimension in active)):
            values = dict(zip((d.key for d in active), combination, strict=True))
            config = self._assemble(lambda dimension, values=values: values.get(dimension.key, dimension.corners()[0]))
            if config not in seen:
                seen.add(config)
                yield config

    def at(self, start: Mapping[str, Any]) -> TrialConfig:
        """The configuration of a starting point; what it leaves open is at its first value."""
        return self._assemble(lambda dimension: start.get(dimension.name, dimension.corners()[0]))

    def point(self, start: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A starting point in the study's terms.

        Raises:
            InputError: a field that the space does not search, a value outside its domain.
        """
        point: dict[str, Any] = {}
        used: set[str] = set()

        def choose(dimension: Dimension) -> Any:
            if dimension.name not in start:
                if not dimension.constant:
                    used.add(dimension.name)
                return dimension.corners()[0]
            value = start[dimension.name]
            if not dimension.contains(value):
                raise InputError(f"{where}.{dimension.name}: {value!r} is outside the space ({dimension})")
            used.add(dimension.name)
            if not dimension.constant:
                point[dimension.key] = encode(value)
            return value

        self._assemble(choose)
        if unused := [name for name in start if name not in used]:
            known = ", ".join(dict.fromkeys(d.name for d in self.dimensions if not d.constant))
            raise InputError(f"{where}.{unused[0]}: not searched here; the space searches {known}")
        return point

    def grid(self, seed: int = 0) -> list[dict[str, Any]]:
        """Every combination of choices in the study's terms, in an order drawn from the seed.

        Raises:
            InputError: a dimension is a range.
        """
        for dimension in self.searched:
            if not dimension.values:
                raise InputError(f"space.{dimension.name}: a range; sampler grid expected a list of values")
        domains = [[(d.key, encode(value)) for value in d.values] for d in self.searched]
        points = [dict(point) for point in itertools.product(*domains)]
        random.Random(seed).shuffle(points)
        return points

    @property
    def searched(self) -> list[Dimension]:
        return [dimension for dimension in self.dimensions if not dimension.constant]

    def _assemble(self, choose: Any) -> TrialConfig:
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.name not in chosen and dimension.holds(chosen):
                chosen[dimension.name] = choose(dimension)
        ratio = chosen.pop(RATIO, None)
        if ratio is not None:
            chosen["alpha"] = ratio * chosen.get("r", _default("r"))
        try:
            return TrialConfig(seed=self.seed, **chosen)
        except ValidationError as error:
            raise InputError(f"space: infeasible combination: {_first(error)}") from None


def encode(value: Any) -> Any:
    """A value as Optuna's categorical distribution holds it: scalars as they are, lists as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def decode(value: Any) -> Any:
    return tuple(json.loads(value)) if isinstance(value, str) and value.startswith("[") else value


def _default(name: str) -> Any:
    return FIELDS[name].default if name in FIELDS else None


def _parse_field(name: str, value: Any) -> list[Dimension]:
    where = f"space.{name}"
    if name in UNSEARCHED and not (name == "rungs" and isinstance(value, int)):
        raise InputError(f"{where}: {UNSEARCHED[name]}")
    if name not in FIELDS and name != RATIO:
        raise InputError(f"{where}: unknown field{did_you_mean(name, [*FIELDS, RATIO])}")
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [_parse_domain(name, item, f"{where}[{i}]") for i, item in enumerate(value)]
    return [_parse_domain(name, value, where)]


def _parse_domain(name: str, value: Any, where: str) -> Dimension:
    when = dict(IMPLIED.get(name, {}))
    if isinstance(value, dict):
        unknown = sorted(set(value) - RANGE_KEYS - {"when", "values", "ratio"})
        if unknown:
            raise InputError(f"{where}.{unknown[0]}: unknown key; expected low, high, log, step, values or when")
        conditions = value.get("when", {})
        if not isinstance(conditions, dict):
            raise InputError(f"{where}.when: expected fields and their values, got {conditions!r}")
        for other, allowed in conditions.items():
            if other not in FIELDS:
                raise InputError(f"{where}.when.{other}: unknown field{did_you_mean(other, list(FIELDS))}")
            when[other] = tuple(allowed) if isinstance(allowed, list) else (allowed,)
        if "values" in value:
            return _choice(name, value["values"], where, when)
        return _range(name, value, where, when)
    return _choice(name, value, where, when)


def _choice(name: str, value: Any, where: str, when: dict[str, tuple[Any, ...]]) -> Dimension:
    values = tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else (value,)
    if not values:
        raise InputError(f"{where}: an empty list; expected at least one value")
    checked = tuple(_check_value(name, v, where) for v in values)
    if len(set(checked)) < len(checked):
        raise InputError(f"{where}: a value stands twice in {value}; expected each once")
    return Dimension(name, values=checked, when=when)


def _range(name: str, value: dict[str, Any], where: str, when: dict[str, tuple[Any, ...]]) -> Dimension:
    for key in ("low", "high"):
        if key not in value:
            raise InputError(f"{where}.{key}: missing; a range has low and high")
    low, high = (_check_value(name, value[key], f"{where}.{key}") for key in ("low", "high"))
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
    return Dimension(name, low=low, high=high, log=log, step=step, integer=integer, when=when)


def _check_value(name: str, value: Any, where: str) -> Any:
    """The value as TrialConfig holds it: `1e-4`, which YAML reads as text, becomes a number."""
    if name == RATIO:
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise InputError(f"{where}: expected a number above 0, got {value!r}")
        return float(value)
    try:
        # `base` is the one field without a default.
        return getattr(TrialConfig.model_validate({"base": "any", name: value}), name)
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error, with_field=False)}, got {value!r}") from None


def _first(error: ValidationError, with_field: bool = True) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{'.'.join(map(str, first['loc']))}: {message}" if with_field and first["loc"] else message


def did_you_mean(name: str, known: list[str]) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of {', '.join(sorted(known))}"


def _ordered(by_name: Mapping[str, list[Dimension]]) -> Iterator[Dimension]:
    """Each field after the fields that its conditions name."""
    done: set[str] = set()
    pending = dict(by_name)
    while pending:
        ready = [
            name
            for name, dimensions in pending.items()
            if all(other in done or other not in by_name for d in dimensions for other in d.when)
        ]
        if not ready:
            raise InputError(f"space: the conditions of {' and '.join(sorted(pending))} wait for each other")
        for name in ready:
            # The branch without a condition of its own is the one for all other cases: it comes last.
            yield from sorted(pending.pop(name), key=lambda d: len(d.when) == len(IMPLIED.get(d.name, {})))
            done.add(name)
