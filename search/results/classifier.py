"""The best candidate of a classification -> merged, checked and exported, then benchmarked against its baselines.

What could be exported is the best trial, and averages of trials of its base that dev cannot tell from it. Their heads
began alike, so that merged weights average with them (trainables/export/mix.py). An average replaces the best single
trial only where it is better on dev: the paired 95 % interval of the difference is above 0.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evaluation.classification.metrics import METRICS
from evaluation.compare import compare
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.results.benchmark import Share, phases
from search.results.best import renew_best
from search.results.choice import RANKED, stage
from search.results.classifier_benchmark import (
    BASELINES,
    Baseline,
    ClassifierBenchmark,
    LabelCandidate,
    LabelWinner,
    dev_and_test,
    read_end,
)
from search.results.leaderboard import Row, read_leaderboard
from search.spec.record import read_record
from trainables.classification.prepared import LabelledData, load_label_report, load_labelled_task
from trainables.config import config_of
from trainables.training.rungs import WEIGHT_FILES

if TYPE_CHECKING:
    from trainables.classification.export import ExportedClassifier
    from trainables.classification.task import LabelledTask
    from trainables.export.card import CardFacts
    from trainables.export.export import Form
    from trainables.export.mix import Mix

MEMBERS = 8  # trials of an average, at most


def finish_classifier(
    run: RunFolder, name: str, metric: str, row: Mapping[str, Any], device: str | None
) -> ClassifierBenchmark:
    """Compare the candidates, export one to `best/`, score it and the baselines on the test part, write the card.

    Args:
        name: of the search.
        metric: that was searched.
        row: the best single trial's.
        device: of the models; None: the first GPU, else the CPU.

    Raises:
        ExportError: the export is not the trained model.
    """
    from trainables.classification.probe import probe
    from trainables.classification.task import majority
    from trainables.export.manifest import replace_card

    _, rows = read_leaderboard(run.path)
    data, test = LabelledData.load(run.data), load_labelled_task(run.data, "test")
    times = [time.perf_counter()]
    candidates = _candidates(run, rows, Row(**row), data.dev, metric, device)
    picked = _winner(candidates)
    times.append(time.perf_counter())
    gap = renew_best(run, lambda new: _export(run, rows, picked, new, name, None, None, False, device)).gap
    times.append(time.perf_counter())
    lead = next(row for row in rows if row.trial == picked.members[0].trial)
    scores: dict[Baseline, tuple[Scores, Scores]] = {
        "majority": (majority(data.true_N.tolist(), data.dev), majority(data.true_N.tolist(), test)),
        "probe": probe(config_of(lead.config), data, test, metric, device),
    }
    against = max(scores, key=lambda baseline: scores[baseline][1].means[metric])
    best = _exported_scores(run, test, device)
    for label, found in (("best", best), *((baseline, own[1]) for baseline, own in scores.items())):
        found.save(run.path / "benchmark" / f"{label}-test.npz")
    times.append(time.perf_counter())
    assert best.outcome is not None
    benchmark = ClassifierBenchmark(
        metric=metric,
        base=str(lead.config["base"]),
        best=LabelWinner(lead.trial, run.best.name, gap, picked.name),
        reason=_reason(picked, candidates),
        examples=len(test.ids),
        groups=len(set(test.groups)),
        baselines={baseline: own[1].means for baseline, own in scores.items()},
        against=against,
        scores=best.means,
        comparisons={m: compare(scores[against][1], best, m) for m in METRICS},
        classes=tuple(best.outcome.classes()),
        confusion=tuple(tuple(counts) for counts in best.outcome.confusion()),
        candidates=tuple(candidates),
        optimism=dev_and_test(
            (picked.dev, best.means[metric]), (scores[against][0].means[metric], scores[against][1].means[metric])
        ),
        seconds=phases(times),
    )
    replace_card(run.best, _card(run, rows, picked, name, benchmark))
    return benchmark


def export_labels(
    run: RunFolder,
    rows: Sequence[Row],
    row: Row | None,
    candidate: str | None,
    dest: Path,
    form: Form | None,
    force: bool,
    device: str | None,
) -> ExportedClassifier:
    """Write a trial, or a candidate, to `dest`, merged and checked on the dev part's texts.

    Args:
        row: the trial's; None: the candidate.
        candidate: its name; None: the one that was exported.
        form: format and precision; None: float32 safetensors.

    Raises:
        ExportError: the exported model is not the trained one.
        InputError: `dest` exists, no such candidate, or weights that cannot be read.
    """
    if row is not None:
        alone = LabelCandidate(f"trial-{row.trial}", (_share(row),), row.score or 0.0)
        return _export(run, rows, alone, dest, run.name, None, form, force, device)
    if not run.benchmark.is_file():
        raise InputError(f"{run.path}: no best/ yet; `embtune search SPEC --resume` finishes the search")
    benchmark = cast(ClassifierBenchmark, read_end(run.benchmark))
    chosen = benchmark.candidate(candidate or benchmark.best.candidate)
    told = benchmark if chosen.name == benchmark.best.candidate else None
    return _export(run, rows, chosen, dest, run.name, told, form, force, device)


def _candidates(
    run: RunFolder, rows: Sequence[Row], best: Row, dev: LabelledTask, metric: str, device: str | None
) -> list[LabelCandidate]:
    """The best single trial, then the greedy and the uniform average of those tied with it on its base."""
    by_trial = {row.trial: row for row in rows}
    scored: dict[tuple[Share, ...], Scores] = {}

    def on_dev(members: tuple[Share, ...]) -> Scores:
        if members not in scored:
            scored[members] = _mixed_scores(_mix(run, by_trial, members), dev, device)
        return scored[members]

    shares = [_share(row) for row in _tied(run, rows, best)][:MEMBERS]
    single = _even(shares[:1])
    greedy = single
    for share in shares[1:]:
        tried = _even((*greedy, share))
        if on_dev(tried).means[metric] >= on_dev(greedy).means[metric]:
            greedy = tried
    found = [LabelCandidate(f"trial-{best.trial}", single, on_dev(single).means[metric])]
    for name, members in (("greedy-soup", greedy), ("uniform-soup", _even(shares))):
        if len(members) > 1 and members not in [candidate.members for candidate in found]:
            scores = on_dev(members)
            found.append(LabelCandidate(name, members, scores.means[metric], compare(on_dev(single), scores, metric)))
    return found


def _tied(run: RunFolder, rows: Sequence[Row], best: Row) -> list[Row]:
    """The best trial, then those of its base that dev cannot tell from it and whose weights are there."""

    def joins(row: Row) -> bool:
        same = all(row.config.get(key) == best.config.get(key) for key in ("base", "revision"))
        there = row.state in RANKED and bool(row.checkpoint)
        folder = run.checkpoint(row.trial, row.checkpoint)
        return same and row.tied and there and any((folder / name).is_file() for name in WEIGHT_FILES)

    return [best, *(row for row in rows if row.trial != best.trial and joins(row))]


def _winner(candidates: Sequence[LabelCandidate]) -> LabelCandidate:
    better = [c for c in candidates if c.dev_gain is not None and c.dev_gain.low > 0]
    return max(better, key=lambda c: c.dev, default=candidates[0])


def _reason(picked: LabelCandidate, candidates: Sequence[LabelCandidate]) -> str:
    single = candidates[0]
    if picked is single:
        others = "no average is shown to be better" if len(candidates) > 1 else "no other trial is tied with it"
        return f"{single.name}, the best single trial, is kept: {others}."
    return f"{picked.name} replaces {single.name}: it is better on dev ({picked.dev:.4f} against {single.dev:.4f})."


def _mixed_scores(mix: Mix, task: LabelledTask, device: str | None) -> Scores:
    from trainables.classification.predict import evaluate_classifier
    from trainables.export.mix import mixed_classifier

    scores = evaluate_classifier(mixed_classifier(mix, device), task)
    gc.collect()  # models refer to themselves: without this, several would be in memory at once
    return scores


def _exported_scores(run: RunFolder, task: LabelledTask, device: str | None) -> Scores:
    from sentence_transformers import CrossEncoder

    from trainables.classification.predict import evaluate_classifier

    model = CrossEncoder(str(run.best), device=device, model_kwargs={"use_safetensors": True})
    return evaluate_classifier(model, task)


def _export(
    run: RunFolder,
    rows: Sequence[Row],
    candidate: LabelCandidate,
    dest: Path,
    name: str,
    benchmark: ClassifierBenchmark | None,
    form: Form | None,
    force: bool,
    device: str | None,
) -> ExportedClassifier:
    from trainables.classification.export import export_classifier

    mix = _mix(run, {row.trial: row for row in rows}, candidate.members)
    texts = load_labelled_task(run.data, "dev").texts
    record = {"base": mix.config.base, "search": name, "candidate": candidate.name, "dev": candidate.dev}
    card = _card(run, rows, candidate, name, benchmark)
    return export_classifier(mix, dest, texts, record, card, form, force, device)


def _card(
    run: RunFolder,
    rows: Sequence[Row],
    candidate: LabelCandidate,
    name: str,
    benchmark: ClassifierBenchmark | None,
) -> str:
    from trainables.classification.card import classifier_card

    members = [next(row for row in rows if row.trial == share.trial) for share in candidate.members]
    dev = load_labelled_task(run.data, "dev")
    facts = _facts(run, name, candidate, members, len(dev.ids), benchmark)
    mix = _mix(run, {row.trial: row for row in rows}, candidate.members)
    classes = benchmark.classes if benchmark is not None else ()
    return classifier_card(mix, facts, classes, pairs=not isinstance(dev.texts[0], str))


def _facts(
    run: RunFolder,
    name: str,
    candidate: LabelCandidate,
    members: Sequence[Row],
    examples: int,
    benchmark: ClassifierBenchmark | None,
) -> CardFacts:
    from trainables.export.card import CardFacts, Figure

    report = load_label_report(run.data)
    trials = ", ".join(str(row.trial) for row in members)
    notes = [f"Made of trial{'s' if len(members) > 1 else ''} {trials} of the search {name}, merged in float32."]
    if len(members) == 1:
        notes[0] += stage(members[0])
    figures = [Figure("dev", read_record(run.path)["metric"], candidate.dev, examples)]
    if benchmark is not None:
        notes.append(f"The baseline on the test part is {BASELINES[benchmark.against]}.")
        figures += [
            Figure("test", c.metric, c.other, c.queries, c.base, c.low, c.high) for c in benchmark.comparisons.values()
        ]
    source = report.config.source
    return CardFacts(
        name=f"{name}, {candidate.name}",
        dataset=Path(source).name if isinstance(source, str) else name,
        figures=figures,
        sizes=report.kept,
        data_sha256=report.content_hash,
        notes=notes,
    )


def _mix(run: RunFolder, rows: Mapping[int, Row], members: Sequence[Share]) -> Mix:
    from trainables.export.mix import Member, Mix

    return Mix(
        tuple(
            Member(config_of(rows[share.trial].config), run.checkpoint(share.trial, share.checkpoint), share.weight)
            for share in members
        )
    )


def _share(row: Row) -> Share:
    return Share(row.trial, row.checkpoint.rsplit("/", 1)[-1])


def _even(shares: Sequence[Share]) -> tuple[Share, ...]:
    return tuple(replace(share, weight=1 / len(shares)) for share in shares)
