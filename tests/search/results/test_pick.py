"""The rule that picks what is exported, on made-up tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.compare import Comparison
from search.results.benchmark import Candidate, Share
from search.results.pick import pick, winner

GUARD = 0.80  # the base's score there
TRIAL = (Share(3, "checkpoint-8"),)
SOUP = (Share(3, "checkpoint-8", 0.5), Share(1, "checkpoint-8", 0.5))


def interval(difference: float, half: float) -> Comparison:
    return Comparison("ndcg@10", 0, difference, difference, difference - half, difference + half, 0.5, 200, 100)


def candidate(
    name: str,
    dev: float,
    guard: float,
    *,
    members: tuple[Share, ...] = SOUP,
    strength: float = 1.0,
    dev_half: float = 0.01,
    guard_half: float = 0.005,
    same_base: bool = True,
) -> Candidate:
    """Against a single trial of 0.50 on dev and 0.795 on the guard."""
    return Candidate(
        name,
        members,
        strength,
        dev,
        guard,
        interval(guard - GUARD, guard_half),
        interval(dev - 0.50, dev_half),
        interval(guard - 0.795, guard_half),
        same_base,
    )


SINGLE = Candidate("trial-3", TRIAL, 1.0, 0.50, 0.795, interval(-0.005, 0.004))


@pytest.mark.parametrize(
    ("other", "won"),
    [
        (candidate("higher by noise", 0.505, 0.797), False),
        (candidate("better on dev", 0.52, 0.795), True),
        (candidate("better on dev, worse on the guard", 0.52, 0.78), True),
        (candidate("tied on dev, better on the guard", 0.495, 0.81), True),
        (candidate("tied on dev, better on the guard by noise", 0.495, 0.799), False),
        (candidate("worse on dev, better on the guard", 0.48, 0.85), False),
        (candidate("of another base, better on the guard", 0.505, 0.85, same_base=False), False),
        (candidate("of another base, better on dev", 0.52, 0.79, same_base=False), True),
    ],
    ids=lambda value: value.name if isinstance(value, Candidate) else "",
)
def test_nothing_wins_by_noise(other: Candidate, won: bool) -> None:
    assert (winner([SINGLE, other]) is other) == won


def test_of_several_that_may_the_highest_on_dev_wins() -> None:
    soup, safe = candidate("soup", 0.52, 0.80), candidate("safe", 0.495, 0.82)
    assert winner([SINGLE, safe, soup]) is soup


def test_dev_of_one_concept_tells_nothing_apart_and_the_guard_decides() -> None:
    blind = Candidate("soup", SOUP, 1.0, 0.9, 0.795, interval(-0.005, 0.004), None, interval(0.0, 0.004))
    assert winner([SINGLE, blind]) is SINGLE
    kept = Candidate("soup", SOUP, 1.0, 0.4, 0.81, interval(0.01, 0.004), None, interval(0.015, 0.004))
    assert winner([SINGLE, kept]) is kept


def curve(*points: tuple[float, float, float]) -> list[Candidate]:
    """Strengths of a soup that wins on dev: (strength, dev, guard)."""
    return [candidate(f"soup@{s:g}", dev, guard, strength=s) for s, dev, guard in points]


def test_a_winner_within_the_tolerance_is_taken_whole() -> None:
    soup = candidate("soup", 0.52, 0.791)
    chosen = pick([SINGLE, soup, *curve((0.5, 0.51, 0.799))], 0.01)
    assert (chosen.candidate, chosen.within) == (soup, True)
    assert "soup replaces trial-3: it is better on dev" in chosen.reason


def test_a_winner_that_forgets_gives_way_to_the_largest_strength_within_the_tolerance() -> None:
    soup = candidate("soup", 0.55, 0.76)
    weaker = curve((0.5, 0.515, 0.797), (0.75, 0.518, 0.792), (1.25, 0.519, 0.799))
    chosen = pick([SINGLE, soup, *weaker], 0.01)
    assert chosen.candidate is weaker[1]
    assert chosen.within
    assert "It loses 0.0400 on the guard" in chosen.reason
    assert "strength 0.75 is taken, which loses 0.0080 on the guard and gives up 0.0320 on dev" in chosen.reason


def test_an_earlier_runs_test_part_guards_too_and_the_larger_loss_counts() -> None:
    soup = replace(candidate("soup", 0.55, 0.795), old_loss=interval(-0.05, 0.01))
    half, most = (
        replace(weaker, old_loss=interval(lost, 0.01))
        for weaker, lost in zip(curve((0.5, 0.53, 0.799), (0.75, 0.54, 0.797)), (-0.009, -0.02), strict=True)
    )
    chosen = pick([SINGLE, soup, half, most], 0.01)
    assert (chosen.candidate, chosen.within) == (half, True)
    assert "It loses 0.0500 on the earlier run's test part" in chosen.reason
    assert pick([SINGLE, replace(soup, old_loss=interval(0.05, 0.01)), half, most], 0.01).candidate.name == "soup"


def test_a_weaker_winner_is_held_against_a_single_within_the_tolerance() -> None:
    soup, half = candidate("soup", 0.52, 0.76), candidate("soup@0.5", 0.45, 0.792, strength=0.5)
    chosen = pick([SINGLE, soup, half], 0.01)
    assert (chosen.candidate, chosen.within) == (SINGLE, True)
    assert "trial-3 is taken, which loses 0.0050 on the guard and gives up 0.0200 on dev" in chosen.reason


def test_a_weaker_winner_does_not_replace_the_single_by_noise() -> None:
    chosen = pick([SINGLE, candidate("soup", 0.55, 0.76), *curve((0.75, 0.505, 0.792))], 0.01)
    assert chosen.candidate is SINGLE


def test_when_no_strength_of_the_winner_stays_within_the_tolerance_the_single_that_does_is_taken() -> None:
    alone = candidate("trial-3@0.5", 0.48, 0.80, members=TRIAL, strength=0.5)
    chosen = pick([SINGLE, candidate("soup", 0.55, 0.70), *curve((0.5, 0.52, 0.75)), alone], 0.01)
    assert (chosen.candidate, chosen.within) == (SINGLE, True)


def test_another_candidate_within_the_tolerance_that_may_replace_the_single_comes_before_it() -> None:
    rungs = candidate("last-rungs", 0.53, 0.793, members=(Share(3, "checkpoint-4"),))
    alone = candidate("trial-7:other", 0.54, 0.70, same_base=False)
    chosen = pick([SINGLE, candidate("soup", 0.55, 0.76), rungs, alone], 0.01)
    assert (chosen.candidate, chosen.within) == (rungs, True)


def test_a_weaker_winner_stands_in_for_a_single_that_loses_too_much_as_well() -> None:
    single = replace(SINGLE, loss=interval(-0.03, 0.004))
    half = candidate("soup@0.5", 0.45, 0.792, strength=0.5)
    chosen = pick([single, candidate("soup", 0.52, 0.76), half], 0.01)
    assert (chosen.candidate, chosen.within) == (half, True)


def test_when_neither_a_strength_nor_the_single_stays_within_the_tolerance_that_is_said() -> None:
    single = replace(SINGLE, loss=interval(-0.03, 0.004))
    alone = candidate("trial-3@0.5", 0.48, 0.80, members=TRIAL, strength=0.5)
    chosen = pick([single, candidate("soup", 0.55, 0.70), *curve((0.5, 0.52, 0.75)), alone], 0.01)
    assert chosen.candidate.name == "soup"
    assert not chosen.within
    assert "so does all that may take its place" in chosen.reason


def test_the_single_that_stands_is_named() -> None:
    chosen = pick([SINGLE, candidate("noise", 0.501, 0.795)], 0.01)
    assert chosen.candidate is SINGLE
    assert "trial-3, the best single trial, is kept" in chosen.reason
