"""The report's page: what the template shows, in the order that a reader asks for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.compare import holm
from search.report.figures import figures
from search.report.gather import RunData
from search.report.labels import label_context, label_figures
from search.results.benchmark import UNSEEN, Benchmark
from search.results.leaderboard import Row
from search.results.table import shown
from search.screen.labels import label_verdict
from search.screen.summary import forgetting, gain, guarded, interval, lost, savings
from trainables.check.view import corpus_text
from trainables.data.report import DataReport

HERE = Path(__file__).parent


def render(data: RunData) -> str:
    """The whole page. All text of the user's is escaped: by Jinja in the page, by `plain` in figures."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = figures(data) | (label_figures(data) if data.classifies else {})
    # A "</script>" in a JSON string would end the script that holds it.
    plots = json.dumps({name: json.loads(figure.to_json()) for name, figure in drawn.items()}).replace("<", "\\u003c")
    return environment.get_template("labels.html.j2" if data.classifies else "report.html.j2").render(
        data=data,
        answer=verdict(data),
        tests=tests(data),
        unseen=UNSEEN[data.benchmark.unseen] if data.benchmark else "",
        candidates=candidates(data.benchmark),
        guarded=guarded(data.benchmark) if data.benchmark else "",
        forgotten=forgetting(data.benchmark) if data.benchmark else "",
        corpus=corpus_text(data.data.corpus) if isinstance(data.data, DataReport) and data.data.corpus else "",
        **(label_context(data) if data.classifies else {}),
        cost=cost(data),
        savings=savings(data.rows),
        board=[board_row(row, data) for row in data.rows],
        slices=[name for name in drawn if name.startswith("slice-")],
        drawn=set(drawn),
        spec=json.dumps({k: v for k, v in data.spec.items() if k != "record"}, indent=1, ensure_ascii=False),
        plots=Markup(plots),
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def verdict(data: RunData) -> tuple[str, str]:
    """(good, bad or open; the answer in one sentence)."""
    if data.smoke:
        return "open", "A smoke run: it shows whether the search works from end to end; its scores mean nothing."
    if data.ended is not None:
        return label_verdict(data.ended)
    if data.benchmark is None:
        best = next((row for row in data.rows if row.score is not None), None)
        so_far = f"; the best dev {data.metric} so far is {best.score:.4f}, of trial {best.trial}" if best else ""
        return "open", f"The search has not come to its benchmark yet{so_far}."
    base_kept = data.row is not None and data.row.config.get("method") == "none"
    return gain(data.benchmark, data.protocol, base_kept)


def tests(data: RunData) -> list[dict[str, Any]]:
    """The comparisons of base and best, p-values corrected over all of them."""
    if data.benchmark is None:
        return []
    found = [
        {"protocol": protocol, "main": (metric, protocol) == (data.metric, data.protocol), **asdict(c)}
        for protocol, part in data.benchmark.protocols.items()
        for metric, c in part.comparisons.items()
    ]
    for one, p in zip(found, holm([one["p_value"] for one in found]), strict=True):
        own = one["protocol"] == data.protocol
        one["p_holm"] = p
        one["errors"] = {label: data.errors[label].get(one["metric"]) if own else None for label in ("base", "best")}
    return found


def candidates(benchmark: Benchmark | None) -> list[dict[str, Any]]:
    """What could have been exported, a row each; empty in runs of earlier versions."""
    return [
        {
            "name": c.name,
            "picked": benchmark is not None and c.name == benchmark.best.candidate,
            "trials": ", ".join(map(str, c.trials)),
            "dev": c.dev,
            "gain": interval(c.dev_gain),
            "guard": c.guard,
            "loss": interval(lost(c.loss)),
            "old_loss": interval(c.old_loss and lost(c.old_loss)),
        }
        for c in (benchmark.candidates if benchmark else ())
    ]


def cost(data: RunData) -> list[tuple[str, str]]:
    """What the search took, and what the pruner saved of it."""
    spent = sum(row.seconds for row in data.rows)
    # A stopped trial's rest, at the speed that it had.
    saved = sum(
        row.seconds * (row.planned_pairs - row.pairs) / row.pairs
        for row in data.rows
        if row.state == "PRUNED" and row.pairs
    )
    states = {
        state: sum(row.state == state for row in data.rows) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
    }
    found = [
        ("trials", ", ".join(f"{count} {state.lower()}" for state, count in states.items() if count)),
        ("trial time", f"{duration(spent)} of training and dev evaluation, over all trials"),
        ("saved by pruning", f"{duration(saved)}, estimated from each stopped trial's speed"),
    ]
    if data.hours:
        found.append(("wall time", f"{duration(data.hours * 3600)} of search"))
    if data.disk:
        parts = ", ".join(f"{name}/ {size_text(size)}" for name, size in data.disk.items() if name)
        found.append(
            ("disk", f"{size_text(sum(data.disk.values()))}: {parts}; `embtune clean` frees what is not needed")
        )
    end = data.benchmark or data.ended
    phases = end.seconds if end else {}
    found += [(f"{phase}, wall time", duration(seconds)) for phase, seconds in phases.items()]
    return found


def size_text(size: int) -> str:
    """
    >>> size_text(999), size_text(1_234_567)
    ('999 bytes', '1.2 MB')
    """
    if size < 1_000_000:
        return f"{size:,} bytes"
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def duration(seconds: float) -> str:
    """
    >>> duration(5), duration(400), duration(9000)
    ('5.0 s', '6.7 min', '2.50 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def board_row(row: Row, data: RunData) -> dict[str, Any]:
    """One line of the leaderboard: (text, what it is sorted by) of each cell."""
    missing = -1e300  # sorts below every number
    values = [axis.values.get(row.trial) for axis in data.axes]
    return {
        "chosen": row.trial == data.chosen,
        "faded": row.state != "COMPLETE",
        "cells": [
            (str(row.rank or ""), row.rank or 1e300),
            (str(row.trial), row.trial),
            (
                "" if row.score is None else f"{row.score:.4f} ±{row.error:.3f}",
                missing if row.score is None else row.score,
            ),
            ("tied" if row.tied else "", int(row.tied)),
            (row.state.lower(), row.state),
            (f"{row.rung}/{row.rungs}", row.rung),
            *((shown(v), missing if v is None else v if isinstance(v, int | float) else str(v)) for v in values),
            ("" if row.trainable is None else f"{row.trainable:,}", row.trainable or 0),
            (duration(row.seconds), row.seconds),
        ],
        "failure": row.failure,
    }
