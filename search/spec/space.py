"""The search space: what a trial's configuration may be, read from the `space:` section of a spec.

Each key is a field of `TrialConfig` (or `alpha_ratio`, which sets alpha = ratio x r). Its value is

- a constant:              ``lr: 5e-5``
- a choice:                ``r: [8, 16, 32]``
- a range:                 ``lr: {low: 1e-5, high: 1e-3, log: true}`` or ``r: {low: 4, high: 64, step: 4}``
- branches, by condition:  ``lr: [{when: {method: full}, low: 1e-6, high: 5e-5, log: true}, {values: [1e-4, 1e-3]}]``

Of several branches the first that holds counts; the one without a condition is for all other cases, wherever it stands.
What only some trials use (the rank of an adapter, the share of a mixed strategy) is sampled in those trials only.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.errors import InputError
from search.spec.constraints import Constraint
from search.spec.dimensions import RATIO, Dimension, decode, default, encode, first_error, in_use, parse_field
from trainables.config import TrialConfig

if TYPE_CHECKING:
    import optuna

SIZED = ("base", "method", "targets", "last_n", "r", "dora", "batch_size", "max_length")  # decide size and memory
# What decides how a base is read.
READ = ("base", "revision", "method", "precision", "attention", "pooling", "task", "query_prompt", "passage_prompt")


@dataclass(frozen=True)
class Space:
    """All dimensions, each after those that its condition names."""

    dimensions: tuple[Dimension, ...]
    seed: int
    constraints: tuple[Constraint, ...] = ()
    kind: type[TrialConfig] = TrialConfig
    labels: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        section: Mapping[str, Any],
        seed: int,
        constraints: Sequence[str] = (),
        kind: type[TrialConfig] = TrialConfig,
        labels: Sequence[str] = (),
    ) -> Space:
        """Read the `space:` section and the `constraints:` between its fields.

        Args:
            kind: of the trials' configurations, a ClassifierConfig for a classification.
            labels: of a classification, as far as they are known.

        Raises:
            InputError: an unknown field, a value outside its field's domain, an empty choice, a condition that no
                value of the field meets, conditions in a circle; or nothing to train because `base` is missing.
        """
        if "base" not in section:
            raise InputError("space.base: missing; expected a hub id, a local folder, or a list of them")
        if "alpha" in section and RATIO in section:
            raise InputError(f"space.alpha: given beside space.{RATIO}; expected one of the two")
        dimensions = [dimension for name, value in section.items() for dimension in parse_field(name, value, kind)]
        by_name: dict[str, list[Dimension]] = {}
        for dimension in dimensions:
            by_name.setdefault(dimension.name, []).append(dimension)
        for dimension in dimensions:
            for name, allowed in dimension.own.items():
                domains = by_name.get(name, [Dimension(name, values=(default(name),))])
                if not any(domain.contains(value) for domain in domains for value in allowed):
                    raise InputError(
                        f"space.{dimension.name}.when.{name}: no trial has {' or '.join(map(str, allowed))}"
                    )
        between = tuple(Constraint.parse(text, f"constraints[{i}]") for i, text in enumerate(constraints))
        return cls(tuple(_ordered(by_name)), seed, between, kind, tuple(labels))

    @property
    def rungs(self) -> int:
        """Dev evaluations of a whole trial; the same for all trials."""
        return next((int(d.values[0]) for d in self.dimensions if d.name == "rungs"), int(default("rungs")))

    def sample(self, trial: optuna.Trial) -> TrialConfig:
        """Ask the study's sampler for one configuration.

        Raises:
            InputError: the combination is infeasible (no trial can have it).
        """
        return self._assemble(lambda dimension: dimension.suggest(trial))

    def configs(self, fields: Collection[str] = SIZED) -> Iterator[TrialConfig]:
        """One configuration for every combination of choices and ends of ranges of the named fields; the other fields
        are at their first value, those that exclude each other at the first that goes together."""
        active = [d for d in self.dimensions if d.name in fields and not d.constant]
        exclusive = [d for d in self.dimensions if d.name in ("loss", "batches", "hard_negatives") and not d.constant]
        others = [
            dict(zip((d.key for d in exclusive), values, strict=True))
            for values in itertools.product(*(d.corners() for d in exclusive))
        ]
        seen = set()
        for combination in itertools.product(*(dimension.corners() for dimension in active)):
            values = dict(zip((d.key for d in active), combination, strict=True))
            for other in others:
                try:
                    config = self._assemble(lambda d, chosen=values | other: chosen.get(d.key, d.corners()[0]))
                except InputError:  # no trial has this combination
                    continue
                if config not in seen:
                    seen.add(config)
                    yield config
                break

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
        points = [point for point in map(dict, itertools.product(*domains)) if self._feasible(point)]
        random.Random(seed).shuffle(points)
        return points

    def start_at(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The starting point that gives the searched fields the values of another search's configuration.

        Raises:
            InputError: a value lies outside this space.
        """
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        values[RATIO] = values["alpha"] / values["r"]
        start: dict[str, Any] = {}

        def choose(dimension: Dimension) -> Any:
            if dimension.constant:
                return dimension.values[0]
            value = values.get(dimension.name)
            if not dimension.contains(value):
                raise InputError(f"{dimension.name}: {value!r} is outside the space ({dimension})")
            start[dimension.name] = value
            return value

        self._assemble(choose)
        return start

    def require_unconditional(self, who: str) -> None:
        """Check that every trial has every searched field.

        Raises:
            InputError: some trials have a field that others do not, which a model over a fixed space cannot hold.
        """
        searched = {dimension.name for dimension in self.searched}
        for dimension in self.searched:
            if depends := sorted(searched & set(dimension.when)):
                raise InputError(
                    f"space.{dimension.name}: depends on {depends[0]}; {who} expected a space without conditions "
                    "(sampler tpe takes them)"
                )

    @property
    def searched(self) -> list[Dimension]:
        return [dimension for dimension in self.dimensions if not dimension.constant]

    def _feasible(self, point: Mapping[str, Any]) -> bool:
        try:
            self._assemble(lambda dimension: decode(point.get(dimension.key, dimension.values[0])))
        except InputError:
            return False
        return True

    def _assemble(self, choose: Any) -> TrialConfig:
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.name not in chosen and dimension.holds(chosen):
                chosen[dimension.name] = choose(dimension)
        ratio = chosen.pop(RATIO, None)
        if ratio is not None:
            chosen["alpha"] = ratio * chosen.get("r", default("r"))
        if self.labels:
            chosen["labels"] = self.labels
        try:
            config = self.kind(seed=self.seed, **chosen)
        except ValidationError as error:
            raise InputError(f"space: infeasible combination: {first_error(error)}") from None
        values, given = dict(config), config.model_fields_set
        for constraint in self.constraints:
            used = all(name in given or in_use(name, values) for name in constraint.fields)
            if used and not constraint.holds(values):
                shown = ", ".join(f"{name} {values[name]:g}" for name in dict.fromkeys(constraint.fields))
                raise InputError(f"space: infeasible combination: {constraint.text} does not hold for {shown}")
        return config


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
            yield from sorted(pending.pop(name), key=lambda d: not d.own)
            done.add(name)
