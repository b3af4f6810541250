"""The report's interactive figures, by Plotly. Backgrounds are clear and neutral colours are set in the page, so that
light and dark both read well."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from search.report.axes import Axis
from search.report.gather import RunData
from search.results.leaderboard import Row
from search.results.table import shown

BLUE, ORANGE, GREY, GREEN, RED = "#4385d6", "#e8792b", "#8b929c", "#2e9d5b", "#d64545"
SCALE = [GREY, BLUE, ORANGE]  # worst to best: three colours that stand out from black and from white
FADED = 0.45
UNUSED = -0.12  # where a trial that does not use a field passes its axis


def figures(data: RunData) -> dict[str, go.Figure]:
    """Name -> figure; those that the run has nothing to show for are left out."""
    found = {
        "benchmark": benchmark(data),
        "strengths": strengths(data),
        "curves": curves(data),
        "importance": importance(data),
        "parallel": parallel(data),
        "pareto": pareto(data),
        **{f"slice-{at}": slice_of(data, axis) for at, axis in enumerate(data.axes)},
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def gain_colour(low: float, high: float) -> str:
    """Of a difference with its 95 % interval."""
    return GREEN if low > 0 else RED if high < 0 else GREY


def benchmark(data: RunData) -> go.Figure | None:
    """Differences between best and base on the test part, with their intervals."""
    if not data.benchmark:
        return None
    figure = go.Figure()
    labels = []
    for protocol, part in data.benchmark.protocols.items():
        for metric, c in part.comparisons.items():
            label = f"{metric}, {protocol}" if len(data.benchmark.protocols) > 1 else metric
            label = f"<b>{plain(label)}</b>" if (metric, protocol) == (data.metric, data.protocol) else plain(label)
            labels.append(label)
            figure.add_scatter(
                x=[c.difference],
                y=[label],
                mode="markers",
                marker={"size": 10, "color": gain_colour(c.low, c.high)},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [c.high - c.difference],
                    "arrayminus": [c.difference - c.low],
                },
                hovertemplate=f"base {c.base:.4f}, best {c.other:.4f}<br>{c.difference:+.4f} "
                f"({c.low:+.4f} to {c.high:+.4f})<extra></extra>",
            )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    return finished(figure, 90 + 26 * len(labels), x="best minus base, 95 % interval", legend=False)


def strengths(data: RunData) -> go.Figure | None:
    """Dev score over the loss on the guard, of each strength between the base and the winner."""
    found = data.benchmark.candidates if data.benchmark else ()
    curve = next((c for c in found if c.strength != 1), None)
    if data.benchmark is None or data.benchmark.guard is None or curve is None:
        return None
    line = sorted((c for c in found if c.members == curve.members), key=lambda c: c.strength)
    picked = data.benchmark.best.candidate
    figure = go.Figure()
    figure.add_scatter(
        x=[c.lost for c in line],
        y=[c.dev for c in line],
        mode="lines+markers+text",
        text=[f"{c.strength:g}" for c in line],
        textposition="top center",
        line={"color": GREY, "width": 1.5},
        marker={
            "size": [13 if c.name == picked else 9 for c in line],
            "color": [ORANGE if c.name == picked else BLUE for c in line],
        },
        hovertext=[plain(c.name) for c in line],
        hovertemplate="%{hovertext}: dev %{y:.4f}, loss on the guard %{x:+.4f}<extra></extra>",
    )
    limit = {"color": RED, "dash": "dot"}
    figure.add_vline(x=data.benchmark.guard.tolerance, line=limit, annotation={"text": "guard.tolerance"})
    x = f"{data.metric} lost on the guard, base minus model"
    return finished(figure, 320, x=x, y=f"dev {data.metric}", legend=False)


def curves(data: RunData) -> go.Figure:
    """Dev score of every trial at each of its rungs."""
    figure = go.Figure()
    told: set[str] = set()
    order = {"FAIL": 0, "PRUNED": 1, "RUNNING": 2, "COMPLETE": 3}
    for row in sorted(data.rows, key=lambda r: (r.trial == data.chosen, order[r.state], -r.rank)):
        points = data.curves[row.trial]
        if not points:
            continue
        group, colour, width, opacity = look(row, data.chosen)
        figure.add_scatter(
            x=[p.rung for p in points],
            y=[p.score for p in points],
            mode="lines+markers",
            line={"color": colour, "width": width},
            marker={"size": 5 if width < 3 else 8},
            opacity=opacity,
            name=group,
            legendgroup=group,
            showlegend=group not in told,
            text=[f"±{p.error:.4f}" for p in points],
            hovertemplate=f"trial {row.trial}, rung %{{x}}: %{{y:.4f}} %{{text}}<br>{config_line(row, data)}"
            "<extra></extra>",
        )
        told.add(group)
    end = data.benchmark or data.ended
    if end is not None and end.optimism is not None:
        line = {"color": GREY, "dash": "dash"}
        name = "base, untrained" if data.ended is None else data.ended.against
        figure.add_hline(y=end.optimism.base.dev, line=line, annotation={"text": name})
    figure.update_xaxes(dtick=1)
    return finished(figure, 420, x="rung: equal shares of a trial's training", y=f"dev {data.metric}")


def importance(data: RunData) -> go.Figure | None:
    """Share of each field, and what chance alone reaches."""
    if not data.importance:
        return None
    fields = [plain(one.field) for one in data.importance]
    figure = go.Figure()
    figure.add_bar(
        x=[one.share for one in data.importance],
        y=fields,
        orientation="h",
        marker={"color": [BLUE if one.share > one.chance else GREY for one in data.importance]},
        name="importance",
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )
    figure.add_scatter(
        x=[one.chance for one in data.importance],
        y=fields,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 16, "color": ORANGE, "line": {"width": 2}},
        name="reached by chance in 1 of 20 shuffled leaderboards",
        hovertemplate="chance: %{x:.0%}<extra></extra>",
    )
    figure.update_yaxes(categoryorder="array", categoryarray=fields[::-1])
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return finished(figure, 130 + 28 * len(fields), x="share of the importance")


def slice_of(data: RunData, axis: Axis) -> go.Figure:
    """Best dev score of each trial over one field."""
    figure = go.Figure()
    for faded in (True, False):
        rows = [r for r in drawn_order(data) if r.trial in axis.values and (r.state != "COMPLETE") == faded]
        figure.add_scatter(
            x=[axis.place(axis.values[r.trial]) for r in rows],
            y=[r.score for r in rows],
            mode="markers",
            marker={
                "size": [12 if r.trial == data.chosen else 8 for r in rows],
                "color": [ORANGE if r.trial == data.chosen else GREY if faded else BLUE for r in rows],
                "opacity": FADED if faded else 0.9,
                "line": {"width": 0},
            },
            text=[f"trial {r.trial}, {plain(shown(axis.values[r.trial]))}" for r in rows],
            hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        )
    ticks = axis.ticks()
    tilted = sum(len(short(label)) for _, label in ticks) > 30
    figure.update_xaxes(
        tickangle=-90 if tilted else 0,
        tickvals=[place for place, _ in ticks],
        ticktext=[plain(short(t)) for _, t in ticks],
        range=[-0.12, 1.12],
    )
    title = axis.field + (" (log)" if axis.log else "")
    figure.update_layout(title={"text": plain(title), "font": {"size": 13}, "x": 0.5})
    return finished(figure, 320 if tilted else 240, legend=False)


def parallel(data: RunData) -> go.Figure | None:
    """Each trial as a line through its values, coloured by its dev score. Lines of SVG: WebGL is not everywhere."""
    rows = sorted((r for r in data.rows if r.score is not None), key=lambda r: r.score or 0.0)
    if not data.axes or not rows:
        return None
    scores = [r.score or 0.0 for r in rows]
    low, high = scores[0], scores[-1]
    figure = go.Figure()
    for row, score in zip(rows, scores, strict=True):
        share = (score - low) / (high - low) if high > low else 1.0
        places = [a.place(a.values[row.trial]) if row.trial in a.values else UNUSED for a in data.axes]
        figure.add_scatter(
            x=list(range(len(data.axes) + 1)),
            y=[*places, share],
            mode="lines+markers",
            marker={"size": 6},
            line={"color": sample_colorscale(SCALE, [share])[0], "width": 4 if row.trial == data.chosen else 2},
            opacity=1.0 if row.state == "COMPLETE" else FADED,
            hovertemplate=f"trial {row.trial}: {score:.4f}<br>{config_line(row, data)}<extra></extra>",
        )
    for at, ticks in enumerate([*(a.ticks() for a in data.axes), [(0.0, f"{low:.4f}"), (1.0, f"{high:.4f}")]]):
        figure.add_vline(x=at, line={"color": GREY, "width": 1}, opacity=0.5)
        for place, label in ticks:
            figure.add_annotation(x=at, y=place, text=plain(short(label)), showarrow=False, xanchor="left", xshift=5)
    if any(len(a.values) < len(data.rows) for a in data.axes):
        figure.add_annotation(x=0, y=UNUSED, text="not used", showarrow=False, xanchor="right", xshift=-8)
    names = [*(plain(a.field) for a in data.axes), plain(f"dev {data.metric}")]
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=names, side="top", range=[-0.3, len(names) - 0.4], showgrid=False
    )
    figure.update_yaxes(visible=False)
    return finished(figure, 420, legend=False)


def pareto(data: RunData) -> go.Figure | None:
    """Dev score against trained parameters, and the front of trials that no other beats on both."""
    rows = [r for r in drawn_order(data) if r.trainable is not None]
    if not rows:
        return None
    figure = go.Figure()
    best = front(rows)
    figure.add_scatter(
        x=[max(r.trainable or 0, 1) for r in best],
        y=[r.score for r in best],
        mode="lines",
        line={"color": BLUE, "shape": "hv", "width": 1},
        name="front",
        hoverinfo="skip",
    )
    for faded, name in ((True, "stopped early"), (False, "complete")):
        group = [r for r in rows if (r.state != "COMPLETE") == faded]
        figure.add_scatter(
            x=[max(r.trainable or 0, 1) for r in group],
            y=[r.score for r in group],
            mode="markers",
            marker={
                "size": [13 if r.trial == data.chosen else 9 for r in group],
                "color": [ORANGE if r.trial == data.chosen else GREY if faded else BLUE for r in group],
                "line": {"width": 0},
            },
            error_y={"type": "data", "array": [r.error for r in group], "color": GREY, "thickness": 1, "width": 2},
            opacity=FADED if faded else 1.0,
            name=name,
            text=[f"trial {r.trial}, {r.trainable or 0:,} parameters" for r in group],
            hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        )
    sizes = [max(r.trainable or 0, 1) for r in rows]
    # Fewer than two powers of ten need the ticks between them.
    figure.update_xaxes(type="log", dtick=1 if max(sizes) > 100 * min(sizes) else "D2")
    return finished(figure, 420, x="trained parameters", y=f"dev {data.metric} ± SE")


def front(rows: list[Row]) -> list[Row]:
    """Complete trials that no other complete trial beats with as few trained parameters, cheapest first."""
    best: list[Row] = []
    complete = [r for r in rows if r.state == "COMPLETE"]
    for row in sorted(complete, key=lambda r: (r.trainable or 0, -(r.score or 0.0))):
        if not best or (row.score or 0.0) > (best[-1].score or 0.0):
            best.append(row)
    return best


def drawn_order(data: RunData) -> list[Row]:
    """Trials with a score, the chosen one last so that it lies on top."""
    return sorted((r for r in data.rows if r.score is not None), key=lambda r: (r.trial == data.chosen, r.score or 0.0))


def look(row: Row, chosen: int | None) -> tuple[str, str, float, float]:
    """(group, colour, line width, opacity) of a trial's curve."""
    if row.trial == chosen:
        return "chosen", ORANGE, 3.5, 1.0
    if row.state == "COMPLETE":
        return "complete", BLUE, 1.8, 0.9
    return {"PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}[row.state], GREY, 1.2, FADED


def config_line(row: Row, data: RunData) -> str:
    """The searched fields of a trial, for a hover."""
    return plain(", ".join(f"{a.field} {shown(a.values[row.trial])}" for a in data.axes if row.trial in a.values))


def plain(text: str) -> str:
    """Text that stands as it is in a figure: Plotly reads some HTML, and mathematics between dollar signs."""
    return html.escape(text).replace("$", "&#36;")


def short(label: str) -> str:
    return label if len(label) <= 18 else label[:17] + "…"


def finished(figure: go.Figure, height: int, *, x: str = "", y: str = "", legend: bool = True) -> go.Figure:
    """The figure with the page's layout and titles of its axes."""
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 34, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": legend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "template": "none",
        "hovermode": "closest",
    }
    figure.update_layout(**layout)
    figure.update_xaxes(title=plain(x) or None, automargin=True)
    figure.update_yaxes(title=plain(y) or None, automargin=True)
    return figure
