"""What could be exported beside the best trial: averages of tied trials, the average of its own last rungs, and parts
of the way from the base to the winner. All are made from weights that are there, merged in float32, and compared on dev
and on the guard.

Greedy and uniform soups: arXiv 2203.05482; the last weights of one training: arXiv 2209.14981; strengths: arXiv
2311.13534. What is averaged are merged weights (trainables/export/mix.py), so that ranks, targets and methods mix.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.compare import Comparison, compare
from evaluation.errors import InputError
from evaluation.metrics import DEFAULT_METRICS
from evaluation.retrieval import Scores, evaluate
from evaluation.task import RetrievalTask
from search.paths import RunFolder
from search.results.benchmark import Candidate, Guard, Part, Share
from search.results.choice import RANKED
from search.results.leaderboard import Row
from search.results.pick import pick, winner
from search.results.table import shown
from trainables.config import TrialConfig
from trainables.data.prepared import OLD_TEST, load_dev, load_task
from trainables.training.rungs import ADAPTER, WEIGHTS, adapters_of_last

if TYPE_CHECKING:
    from trainables.export.mix import Mix

MEMBERS = 8  # trials of an average, at most
STRENGTHS = (0.5, 0.75, 1.25)  # beside 1, which is the winner itself


@dataclass(frozen=True)
class Compared:
    """What could be exported, and what is.

    Attributes:
        candidates: the best single trial first.
        picked: one of them.
        guard: why it, which trials could not be read, and what it has forgotten.
    """

    candidates: tuple[Candidate, ...]
    picked: Candidate
    guard: Guard


def compare_candidates(
    run: RunFolder, rows: Sequence[Row], best: Row, metric: str, tolerance: float, device: str | None
) -> Compared:
    """Make the candidates of a run and pick one.

    Args:
        rows: the leaderboard, ties marked.
        best: the best single trial.
        tolerance: loss on the guard that is accepted.
        device: of the models; None: the first GPU, else the CPU.

    Raises:
        InputError: weights of the best trial that cannot be read.
    """
    judge = _Judge(run, rows, metric, device)
    gc.freeze()  # the collections after each model need not look through everything that was imported
    try:
        _fill(judge, run, rows, best)
    finally:
        gc.unfreeze()
    picked = pick(judge.candidates, tolerance)
    part = judge.guard_part(picked.candidate)
    reason = " ".join((picked.reason, *judge.left_out))
    return Compared(tuple(judge.candidates), picked.candidate, Guard(tolerance, picked.within, reason, part))


def _fill(judge: _Judge, run: RunFolder, rows: Sequence[Row], best: Row) -> None:
    """Make and score the candidates: of each base, then the winner's strengths."""
    groups = groups_of(run, rows, best)
    for number, (group, suffix) in enumerate(zip(groups, suffixes([g[0].config["base"] for g in groups]), strict=True)):
        # What the best single trial lacks is an error; others are left out.
        lead = [_share(best)] if not number else []
        shares = lead + judge.readable([_share(row) for row in group[len(lead) :]])
        if not shares:
            continue
        judge.add(f"trial-{shares[0].trial}{suffix}", shares[:1], same_base=not number)
        trained = [share for share in shares if judge.trains(share)]
        greedy = judge.greedy(trained)
        if len(greedy) > 1:
            judge.add(f"greedy-soup{suffix}", greedy, same_base=not number)
        if 1 < len(trained) != len(greedy):
            judge.add(f"uniform-soup{suffix}", trained, same_base=not number)
        first = next(row for row in group if row.trial == shares[0].trial)
        rungs = judge.readable(_last_rungs(run, first))
        if len(rungs) > 1:
            judge.add(f"last-rungs{suffix}", rungs, same_base=not number)
    won = winner(judge.candidates)
    if any(judge.trains(share) for share in won.members):
        for strength in STRENGTHS:
            judge.add(f"{won.name}@{strength:g}", won.members, strength, won.same_base)


def suffixes(bases: Sequence[str]) -> list[str]:
    """What tells each group's candidates from the others', by the bases' names: nothing for the first group's, then
    `:base`, and `:base-2` where that is taken (bases of one name, or one base read in two ways)."""
    made = [""]
    for base in bases[1:]:
        name = tried = f":{shown(base)}"
        number = 1
        while tried in made:
            number += 1
            tried = f"{name}-{number}"
        made.append(tried)
    return made


def mix_of_candidate(run: RunFolder, rows: Sequence[Row], candidate: Candidate) -> Mix:
    """A candidate as what is merged."""
    return _mix(run, {row.trial: row for row in rows}, candidate.members, candidate.strength)


class _Judge:
    """Scores candidates, one model in memory at a time."""

    def __init__(self, run: RunFolder, rows: Sequence[Row], metric: str, device: str | None) -> None:
        self.candidates: list[Candidate] = []
        self.left_out: list[str] = []  # which weights could not be read, in sentences
        self._run, self._metric, self._device = run, metric, device
        self._rows = {row.trial: row for row in rows}
        self._dev, self._guard, self._old = load_dev(run.data), RetrievalTask.load_beir(run.guard), _old_test(run)
        self._metrics = tuple(dict.fromkeys((*DEFAULT_METRICS, metric)))
        self._single: tuple[Scores, Scores] | None = None  # dev and guard of the best single trial
        self._guards: dict[str, Scores] = {}  # candidate -> its scores on the guard
        self._bases: dict[tuple[object, ...], list[Scores]] = {}  # how a base is read -> its scores on the guards
        self._devs: dict[tuple[Share, ...], Scores] = {}  # what the greedy average has tried

    def trains(self, share: Share) -> bool:
        """Whether a trial has weights of its own."""
        return bool(self._rows[share.trial].config.get("method") != "none")

    def readable(self, shares: Sequence[Share]) -> list[Share]:
        """Those whose weights can be read; of the others a sentence is kept."""
        from trainables.export.mix import check_mix

        found = []
        for share in shares:
            try:
                check_mix(_mix(self._run, self._rows, (replace(share, weight=1.0),), 1.0))
                found.append(share)
            except InputError as error:
                self.left_out.append(f"Left out: trial {share.trial}, whose weights cannot be read ({error}).")
        return found

    def greedy(self, shares: Sequence[Share]) -> tuple[Share, ...]:
        """The trials whose average does not fall on dev as each joins."""
        return greedy_soup(shares, lambda members: self._on_dev(members).means[self._metric])

    def add(self, name: str, members: Sequence[Share], strength: float = 1.0, same_base: bool = True) -> None:
        """Score a candidate against the first one, and on the guard against its base too."""
        members = _even(members)
        known = self._devs.get(members) if strength == 1 else None
        tasks = self._guarding if known is not None else [*self._guarding, self._dev]
        guard, *rest = self._scores(_mix(self._run, self._rows, members, strength), tasks)
        dev = known if known is not None else rest.pop()
        if strength == 1:
            self._devs[members] = dev
        base = self._base(self._rows[members[0].trial])
        single = self._single or (dev, guard)
        first = self._single is None
        self._single, self._guards[name] = single, guard
        self.candidates.append(
            Candidate(
                name=name,
                members=members,
                strength=strength,
                dev=dev.means[self._metric],
                guard=guard.means[self._metric],
                loss=compare(base[0], guard, self._metric),
                dev_gain=None if first else self._gain(single[0], dev),
                guard_gain=None if first else self._gain(single[1], guard),
                same_base=same_base,
                old_loss=compare(base[1], rest[0], self._metric) if rest else None,
            )
        )

    def guard_part(self, candidate: Candidate) -> Part:
        """Base and candidate on the guard, on every metric."""
        base = self._base(self._rows[candidate.members[0].trial])
        return Part.of(self._guard, base[0], self._guards[candidate.name], self._metrics)

    @property
    def _guarding(self) -> list[RetrievalTask]:
        return [self._guard] if self._old is None else [self._guard, self._old]

    def _gain(self, single: Scores, other: Scores) -> Comparison | None:
        return compare(single, other, self._metric) if len(set(single.groups)) > 1 else None

    def _on_dev(self, members: tuple[Share, ...]) -> Scores:
        if members not in self._devs:
            (self._devs[members],) = self._scores(_mix(self._run, self._rows, members, 1.0), [self._dev])
        return self._devs[members]

    def _base(self, row: Row) -> list[Scores]:
        from trainables.export.mix import Mix

        base = _read(row)
        if base not in self._bases:
            config = TrialConfig.model_validate(row.config).model_copy(update={"method": "none"})
            self._bases[base] = self._scores(Mix.of(config, self._run.path), self._guarding)
        return self._bases[base]

    def _scores(self, mix: Mix, tasks: Sequence[RetrievalTask]) -> list[Scores]:
        from trainables.export.mix import mixed_model

        model = mixed_model(mix, self._device)
        scores = [evaluate(model, task, self._metrics) for task in tasks]
        del model
        gc.collect()  # models refer to themselves: without this, several would be in memory at once
        return scores


def greedy_soup(shares: Sequence[Share], dev: Callable[[tuple[Share, ...]], float]) -> tuple[Share, ...]:
    """The first, and each of the others whose joining does not lower the score; of none, none.

    Args:
        shares: best first.
        dev: the score of an average of equal weights.
    """
    kept = _even(shares[:1])
    for share in shares[1:]:
        tried = _even((*kept, share))
        if dev(tried) >= dev(kept):
            kept = tried
    return kept


def _old_test(run: RunFolder) -> RetrievalTask | None:
    """The test part of the run that this one continues, where there is one that gives intervals."""
    if not (run.data / f"{OLD_TEST}.jsonl").exists():
        return None
    task = load_task(run.data, OLD_TEST)
    return task if len(set(task.groups.values())) > 1 else None


def groups_of(run: RunFolder, rows: Sequence[Row], best: Row) -> list[list[Row]]:
    """Of each base that is read in one way, its best trial, then the trained ones that can be averaged, best on dev
    first; the best single trial's base comes first. A base without a tied trial has its best complete one."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    others = [row for row in rows if row.trial != best.trial and _there(run, row)]
    for row in [best, *sorted(others, key=lambda row: -(row.score or 0))]:
        groups.setdefault(_read(row), []).append(row)
    made = []
    for group in groups.values():
        tied = [row for row in group if row.trial == best.trial or row.tied]
        tied = tied or [row for row in group if row.state == "COMPLETE"][:1]
        if tied:
            trained = [row for row in tied if row.config.get("method") != "none"][:MEMBERS]
            made.append([tied[0], *(row for row in trained if row.trial != tied[0].trial)])
    return made


def _read(row: Row) -> tuple[object, ...]:
    """What members of an average have to share."""
    from trainables.bases.families import resolve_base

    config = TrialConfig.model_validate(row.config)
    base = resolve_base(config)
    read = (base.pooling, base.query_prompt, base.passage_prompt)
    return (config.base, config.revision, config.trust_remote_code, *read)


def _there(run: RunFolder, row: Row) -> bool:
    """Whether the trial has ended and its weights are on disk."""
    if row.state not in RANKED or not row.checkpoint:
        return False
    method, folder = row.config.get("method"), run.checkpoint(row.trial, row.checkpoint)
    return method == "none" or (folder / (WEIGHTS if method == "full" else ADAPTER)).is_file()


def _last_rungs(run: RunFolder, row: Row) -> list[Share]:
    """The last rungs of a whole trial whose adapters are there, the best of them first."""
    if row.state != "COMPLETE":
        return []
    rungs = [Share(row.trial, Path(rung.folder).name) for rung in adapters_of_last(run.trial(row.trial))]
    return sorted(rungs, key=lambda share: share.checkpoint != _share(row).checkpoint)


def _share(row: Row) -> Share:
    return Share(row.trial, row.checkpoint.rsplit("/", 1)[-1])


def _even(shares: Sequence[Share]) -> tuple[Share, ...]:
    return tuple(Share(share.trial, share.checkpoint, 1 / len(shares)) for share in shares)


def _mix(run: RunFolder, rows: dict[int, Row], members: Sequence[Share], strength: float) -> Mix:
    from trainables.export.mix import Member, Mix

    return Mix(
        tuple(
            Member(
                TrialConfig.model_validate(rows[share.trial].config),
                run.checkpoint(share.trial, share.checkpoint),
                share.weight,
            )
            for share in members
        ),
        strength,
    )
