"""The searched fields as axes: where a trial's value stands between the lowest and the highest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from search.results.importance import field_of
from search.results.leaderboard import shown


@dataclass(frozen=True)
class Axis:
    """One searched field.

    Attributes:
        field: its name.
        values: trial -> value; trials that do not use the field are left out.
        choices: of a choice, in order; empty for a range.
        low, high, log: of a range.
    """

    field: str
    values: dict[int, Any]
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: Any) -> float:
        """Between 0 and 1, on the axis's own scale."""
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        ends = [math.log(v) if self.log else v for v in (self.low, self.high, value)]
        return (ends[2] - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label): each choice, or the ends and the middle of a range."""
        if self.choices:
            return [(self.place(choice), shown(choice)) for choice in self.choices]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(self.place(value), f"{value:.2g}") for value in (self.low, middle, self.high)]


def axes(trials: Sequence[FrozenTrial], order: Sequence[str]) -> list[Axis]:
    """Axes of the fields that took more than one value, in the given order, others after them by name."""
    values: dict[str, dict[int, Any]] = {}
    domains: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            values.setdefault(field_of(key), {})[trial.number] = value
            domains.setdefault(field_of(key), []).append(trial.distributions[key])
    place = {field: at for at, field in enumerate(order)}
    fields = sorted(values, key=lambda field: (place.get(field, len(place)), field))
    return [_axis(f, values[f], domains[f]) for f in fields if len({str(v) for v in values[f].values()}) > 1]


def _axis(field: str, values: dict[int, Any], domains: Sequence[BaseDistribution]) -> Axis:
    choices: list[Any] = []
    ranges: list[Any] = []
    for domain in domains:
        if isinstance(domain, CategoricalDistribution):
            choices += [choice for choice in domain.choices if choice not in choices]
        else:
            ranges.append(domain)
    if choices:  # a field may be a choice in one branch and a range in another
        choices += [value for value in values.values() if value not in choices]
        numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
        return Axis(field, values, tuple(sorted(choices) if numbers else choices))
    low, high = min(domain.low for domain in ranges), max(domain.high for domain in ranges)
    return Axis(field, values, (), low, high, any(domain.log for domain in ranges))
