"""The main figures as PNG files, by Matplotlib: a slide or an e-mail takes no interactive page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.files import aside
from search.report.figures import BLUE, FADED, GREY, ORANGE, drawn_order, front, gain_colour, look, short
from search.report.gather import RunData

DPI = 150


def write_images(data: RunData, folder: Path) -> list[Path]:
    """Write the PNGs that the run has something to show for."""
    made = {
        "benchmark": benchmark(data) if data.benchmark else None,
        "curves": curves(data),
        "importance": importance(data) if data.importance else None,
        "pareto": pareto(data),
        "slices": slices(data) if data.axes else None,
    }
    paths = []
    for name, figure in made.items():
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # of an earlier report
            continue
        if data.smoke:
            figure.suptitle("SMOKE RUN: these scores mean nothing", color="#b00020", fontsize=9)
        with aside(path) as draft:
            figure.savefig(draft, dpi=DPI, format="png")
        paths.append(path)
    return paths


def benchmark(data: RunData) -> Figure:
    assert data.benchmark is not None
    parts = [
        (f"{metric}, {protocol}", c, (metric, protocol) == (data.metric, data.protocol))
        for protocol, part in data.benchmark.protocols.items()
        for metric, c in part.comparisons.items()
    ]
    figure, axes = _figure(7, 1.2 + 0.28 * len(parts))
    for at, (_, c, main) in enumerate(parts):
        colour = gain_colour(c.low, c.high)
        axes.plot([c.low, c.high], [at, at], color=colour, linewidth=2.5 if main else 1.5)
        axes.plot(c.difference, at, "o", color=colour, markersize=8 if main else 6)
    axes.axvline(0, color=GREY, linestyle=":")
    axes.set_yticks(range(len(parts)), [_plain(label) for label, _, _ in parts])
    for label, (_, _, main) in zip(axes.get_yticklabels(), parts, strict=True):
        label.set_fontweight("bold" if main else "normal")
    axes.invert_yaxis()
    axes.set_xlabel("best minus base on the test part, 95 % interval")
    return figure


def curves(data: RunData) -> Figure:
    figure, axes = _figure(7, 4)
    told: set[str] = set()
    for row in sorted(data.rows, key=lambda r: (r.trial == data.chosen, r.state == "COMPLETE")):
        points = data.curves[row.trial]
        if not points:
            continue
        group, colour, width, opacity = look(row, data.chosen)
        axes.plot(
            [p.rung for p in points],
            [p.score for p in points],
            "o-",
            color=colour,
            linewidth=width,
            alpha=opacity,
            markersize=3,
            label=None if group in told else group,
        )
        told.add(group)
    axes.set_xticks(range(1, max((p.rung for c in data.curves.values() for p in c), default=1) + 1))
    axes.set_xlabel("rung: equal shares of a trial's training")
    axes.set_ylabel(f"dev {data.metric}")
    if told:
        axes.legend(frameon=False, fontsize=8)
    return figure


def importance(data: RunData) -> Figure:
    figure, axes = _figure(7, 1.2 + 0.32 * len(data.importance))
    places = range(len(data.importance))
    axes.barh(
        places,
        [one.share for one in data.importance],
        color=[BLUE if one.share > one.chance else GREY for one in data.importance],
    )
    axes.plot([one.chance for one in data.importance], places, "|", color=ORANGE, markersize=14, markeredgewidth=2)
    axes.set_yticks(places, [_plain(one.field) for one in data.importance])
    axes.invert_yaxis()
    axes.set_xlabel("share of the importance; orange: reached by chance in 1 of 20 shuffled leaderboards")
    return figure


def pareto(data: RunData) -> Figure:
    figure, axes = _figure(7, 4)
    rows = [r for r in drawn_order(data) if r.trainable is not None]
    for row in rows:
        axes.errorbar(
            max(row.trainable or 0, 1),
            row.score or 0.0,
            row.error or 0.0,
            fmt="o",
            color=ORANGE if row.trial == data.chosen else BLUE if row.state == "COMPLETE" else GREY,
            alpha=1.0 if row.state == "COMPLETE" else FADED,
        )
    best = front(rows)
    axes.step(
        [max(r.trainable or 0, 1) for r in best], [r.score or 0.0 for r in best], where="post", color=BLUE, linewidth=1
    )
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters")
    axes.set_ylabel(f"dev {data.metric} ± its standard error")
    return figure


def slices(data: RunData) -> Figure:
    columns = min(3, len(data.axes))
    lines = -(-len(data.axes) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * lines + 0.2), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for at, axes in enumerate(grid.flat):
        if at >= len(data.axes):
            axes.set_visible(False)
            continue
        axis = data.axes[at]
        for row in drawn_order(data):
            if row.trial in axis.values:
                done = row.state == "COMPLETE"
                colour = ORANGE if row.trial == data.chosen else BLUE if done else GREY
                place = axis.place(axis.values[row.trial])
                axes.plot(place, row.score or 0.0, "o", color=colour, alpha=0.9 if done else FADED)
        ticks = axis.ticks()
        axes.set_xticks([place for place, _ in ticks], [_plain(short(label)) for _, label in ticks], fontsize=8)
        axes.set_xlim(-0.15, 1.15)
        axes.set_title(_plain(axis.field + (" (log)" if axis.log else "")), fontsize=10)
        _clean(axes)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _plain(text: str) -> str:
    """A label as it stands: Matplotlib reads what is between two dollar signs as mathematics."""
    return text.replace("$", r"\$")
