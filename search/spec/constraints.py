"""Constraints between fields, such as ``r * batch_size <= 1024``: products of fields and numbers, compared.

The grammar is this small on purpose: a spec is data, and nothing of it is ever executed.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.errors import InputError
from trainables.config import TrialConfig

_FACTOR = r"(?:[A-Za-z_]\w*|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_PRODUCT = rf"{_FACTOR}(?:\s*\*\s*{_FACTOR})*"
_CONSTRAINT = re.compile(rf"\s*({_PRODUCT})\s*(<=|>=|==|!=|<|>)\s*({_PRODUCT})\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
NUMBERS = [
    name for name, info in TrialConfig.model_fields.items() if info.annotation in (int, float, int | None, float | None)
]


@dataclass(frozen=True)
class Constraint:
    """left OP right, each a product of fields and numbers."""

    text: str
    left: tuple[str, ...]
    compare: str
    right: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, where: str) -> Constraint:
        """Read one constraint.

        Raises:
            InputError: not of the form, a field that is unknown or no number.
        """
        match = _CONSTRAINT.fullmatch(text)
        if match is None:
            raise InputError(
                f"{where}: {text!r}: expected products of fields and numbers with <=, >=, <, >, == or != between, "
                "as in r * batch_size <= 1024"
            )
        left, compare, right = match.groups()
        sides = [tuple(factor.strip() for factor in side.split("*")) for side in (left, right)]
        for name in (factor for side in sides for factor in side if not factor[0].isdigit()):
            if name not in NUMBERS:
                raise InputError(
                    f"{where}: {text!r}: {name} is no field that holds a number; those are {', '.join(NUMBERS)}"
                )
        return cls(text.strip(), sides[0], compare, sides[1])

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(name for name in (*self.left, *self.right) if not name[0].isdigit())

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration's values satisfy it; a constraint on a field without a value says nothing."""
        if any(values[name] is None for name in self.fields):
            return True
        left, right = (math.prod(float(values.get(f, f)) for f in side) for side in (self.left, self.right))
        return _COMPARE[self.compare](left, right)
