"""What a report shows of a classification alone: confusion, classes, baselines, the course of the best trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from search.report.figures import BLUE, GREEN, GREY, ORANGE, RED, finished, plain, short
from search.report.gather import RunData
from search.results.classifier_benchmark import BASELINES, ClassifierBenchmark
from search.screen.labels import LOWER


def label_figures(data: RunData) -> dict[str, go.Figure]:
    """Name -> figure; those that the run has nothing to show for are left out."""
    found: dict[str, go.Figure] = {}
    if data.ended is not None:
        found["confusion"] = confusion(data.ended)
        found["classes"] = classes(data.ended)
        found["baselines"] = baselines(data.ended)
    if data.course:
        found["course"] = course(data)
    return found


def confusion(benchmark: ClassifierBenchmark) -> go.Figure:
    """Shares of each class by what it is taken for, the counts written in the cells."""
    counts = np.array(benchmark.confusion)
    names = [plain(short(one.label)) for one in benchmark.classes]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = go.Figure()
    figure.add_heatmap(
        z=shares.tolist(),
        x=names,
        y=names,
        text=[[str(count) if count else "" for count in row] for row in counts.tolist()],
        texttemplate="%{text}",
        colorscale=[[0, "rgba(67,133,214,0)"], [1, BLUE]],
        zmin=0,
        zmax=1,
        showscale=False,
        hovertemplate="%{y} taken for %{x}: %{text} (%{z:.0%} of its examples)<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(side="bottom", tickangle=-45 if len(names) > 4 else 0)
    return finished(figure, 170 + 30 * len(names), x="said", y="label", legend=False)


def classes(benchmark: ClassifierBenchmark) -> go.Figure:
    """Precision, recall and F1 of each class, the best first."""
    order = sorted(benchmark.classes, key=lambda one: one.f1)
    figure = go.Figure()
    for name, colour in (("recall", GREEN), ("precision", GREY), ("f1", BLUE)):
        figure.add_bar(
            x=[getattr(one, name) for one in order],
            y=[plain(short(one.label)) for one in order],
            orientation="h",
            name="F1" if name == "f1" else name,
            marker={"color": colour},
            hovertemplate="%{y}: %{x:.3f}<extra>" + name + "</extra>",
        )
    figure.update_xaxes(range=[0, 1])
    return finished(figure, 110 + 36 * len(order))


def baselines(benchmark: ClassifierBenchmark) -> go.Figure:
    """The searched metric of the best model and of what it has to beat."""
    names = [*benchmark.baselines, "best"]
    metric = benchmark.metric
    scores = [*(own[metric] for own in benchmark.baselines.values()), benchmark.scores[metric]]
    figure = go.Figure()
    figure.add_bar(
        x=scores,
        y=names,
        orientation="h",
        text=[f"{score:.3f}" for score in scores],
        marker={"color": [*[GREY] * len(benchmark.baselines), ORANGE]},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[0, 1])
    return finished(figure, 190, x=f"{benchmark.metric} on the test part", legend=False)


def course(data: RunData) -> go.Figure:
    """Training loss and dev metrics of the chosen trial, rung by rung."""
    figure = go.Figure()
    rungs = [point["rung"] for point in data.course]
    for name, colour, axis in (
        ("macro_f1", BLUE, "y"),
        ("accuracy", GREEN, "y"),
        ("log_loss", RED, "y2"),
        ("loss", GREY, "y2"),
    ):
        title = {"loss": "training loss", "log_loss": "dev log loss"}.get(name, f"dev {name}")
        figure.add_scatter(
            x=rungs,
            y=[point[name] for point in data.course],
            mode="lines+markers",
            name=title,
            line={"color": colour, "dash": "dot" if axis == "y2" else "solid"},
            yaxis=axis,
            hovertemplate=f"{title}, rung %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(dtick=1)
    figure = finished(figure, 360, x="rung: equal shares of the training", y="score")
    right = {"overlaying": "y", "side": "right", "title": {"text": "loss"}, "showgrid": False}
    return figure.update_layout(yaxis2=right)


def label_context(data: RunData) -> dict[str, Any]:
    """What the page shows beside what every page does."""
    ended = data.ended
    if ended is None:
        return {"rows": [], "baseline": "", "averages": []}
    rows = [
        {
            "metric": metric,
            "main": metric == ended.metric,
            "baselines": [scores[metric] for scores in ended.baselines.values()],
            "best": c.other,
            "difference": c.difference,
            "low": c.low,
            "high": c.high,
            "p": c.p_value,
            "lower": metric in LOWER,
        }
        for metric, c in ended.comparisons.items()
    ]
    return {"rows": rows, "baseline": BASELINES[ended.against], "averages": _averages(ended)}


def _averages(ended: ClassifierBenchmark) -> Sequence[dict[str, Any]]:
    return [
        {
            "name": c.name,
            "picked": c.name == ended.best.candidate,
            "trials": ", ".join(str(share.trial) for share in c.members),
            "dev": c.dev,
            "gain": "" if (g := c.dev_gain) is None else f"{g.difference:+.4f} ({g.low:+.4f} to {g.high:+.4f})",
        }
        for c in ended.candidates
    ]
