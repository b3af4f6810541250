"""Which candidate becomes the best model. Nothing wins by noise, and what is forgotten is bounded.

1. The best single trial stands unless another candidate replaces it. One does that is better on dev, or that is tied or
   better on dev and better on the guard; "better" means that the paired 95 % interval of the difference to the best
   single is above 0, "tied" that it is not below. A candidate of another base has to be better on dev. Of several, the
   one with the highest dev score is taken.
2. A winner that loses more on the guard than is tolerated gives way to the largest strength, between its base and
   itself, that stays within the tolerance. Where none does, the winner stays, and that is told. In a run that continues
   another, that run's test part is a second guard: the larger of the two losses counts.

The intervals are not corrected for the number of candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.results.benchmark import Candidate


@dataclass(frozen=True)
class Pick:
    """The candidate that is exported.

    Attributes:
        candidate: it.
        within: whether it loses no more on the guard than is tolerated.
        reason: one or two sentences for people.
    """

    candidate: Candidate
    within: bool
    reason: str


def winner(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate that wins by the first rule.

    Args:
        candidates: the best single trial, then the others.
    """
    single, *others = candidates
    return max((c for c in others if replaces(c)), key=lambda c: c.dev, default=single)


def replaces(candidate: Candidate) -> bool:
    """Whether a candidate may stand in for the best single trial."""
    dev, guard = candidate.dev_gain, candidate.guard_gain
    if dev is not None and dev.low > 0:
        return True
    not_worse = dev is None or dev.high >= 0  # None: dev has one concept and tells nothing apart
    return candidate.same_base and not_worse and guard is not None and guard.low > 0


def pick(candidates: Sequence[Candidate], tolerance: float) -> Pick:
    """The candidate to export: the winner, or what of its strength the tolerance leaves.

    Args:
        candidates: the best single trial, then the others, strengths of the winner among them.
        tolerance: largest loss on a guard, base minus candidate.
    """
    won, single = winner(candidates), candidates[0]
    reason = _won(won, single)
    if won.lost <= tolerance:
        return Pick(won, True, reason)
    weaker = [c for c in candidates if c.members == won.members and c.strength < won.strength]
    kept = max((c for c in weaker if c.lost <= tolerance), key=lambda c: c.strength, default=None)
    lost = f"It loses {won.lost:.4f} on {won.lost_on}, more than the {tolerance:g} that guard.tolerance accepts"
    if kept is None:
        return Pick(won, False, f"{reason} {lost}, and so does every weaker strength that was tried: it is kept.")
    return Pick(
        kept,
        True,
        f"{reason} {lost}: strength {kept.strength:g} is taken, which loses {kept.lost:.4f} on {kept.lost_on} and "
        f"gives up {won.dev - kept.dev:.4f} on dev ({kept.dev:.4f} for {won.dev:.4f}).",
    )


def _won(won: Candidate, single: Candidate) -> str:
    if won is single:
        return f"Of the candidates {single.name}, the best single trial, is kept: no other is shown to be better."
    dev = f"dev {won.dev:.4f} against {single.dev:.4f}"
    if won.dev_gain is not None and won.dev_gain.low > 0:
        return f"{won.name} replaces {single.name}: it is better on dev ({dev})."
    return (
        f"{won.name} replaces {single.name}: tied on dev ({dev}), it is better on the guard "
        f"({won.guard:.4f} against {single.guard:.4f})."
    )
