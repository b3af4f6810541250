"""The report of a run's folder: what it says, that it needs no network, that it trusts no text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search.cli import cli
from search.report.axes import Axis
from search.report.figures import front
from search.report.gather import RunData, best_single, gather
from search.report.page import cost, render, verdict
from search.report.write import write_report
from search.results.benchmark import Benchmark, Share
from search.results.leaderboard import read_leaderboard
from search.screen.summary import guarded, picked, pool
from tests.kit.toy_run import METRIC, make_run
from trainables.data.prepared import load_task

CHROMIUM = Path("/usr/bin/chromium")
NASTY = (
    " </script><script>document.title='pwned'</script><img src=https://example.org/x.png onerror=alert(1)> $x$ {{7*7}}"
)


class Page(HTMLParser):
    """Tags with their attributes, the page's own text, and what scripts and styles hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag in ("script", "style"):
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.code[-1] += data
        else:
            self.text += " " + " ".join(data.split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"), "toy-report", budget={"trials": 12})


@pytest.fixture(scope="module")
def data(run: Path) -> RunData:
    return gather(run)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    return make_run(folder, base="some/<b>ase", suffix=NASTY, space={"base": ["some/<b>ase", "a$_{b}$<i>"]})


def test_the_verdict_and_every_section_are_there(run: Path, data: RunData, page: Page) -> None:
    benchmark = json.loads((run / "benchmark.json").read_text())
    c = benchmark["protocols"]["concept"]["comparisons"][METRIC]
    assert verdict(data)[1] in page.text
    assert f"from {c['base']:.3f} to {c['other']:.3f}" in page.text
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"benchmark", "queries", "leaderboard", "curves", "importance", "pareto", "data", "cost", "spec"} <= ids
    assert f"{benchmark['optimism']['best']['difference']:+.4f}" in page.text
    assert "ray" in page.text
    assert benchmark["optimism"]["best"]["dev"] == data.row.metrics[METRIC] if data.row else False
    _, rows = read_leaderboard(run)
    for row in rows:
        assert row.score is None or f"{row.score:.4f} ±{row.error:.3f}" in page.text
    assert "the loss is nan at step 3 <b>of</b> 8" in page.text


def test_each_figure_has_its_place_and_each_trial_its_curve(data: RunData, page: Page) -> None:
    plots = json.loads(next(code for code in page.code if '"curves"' in code[:200_000]))
    places = {a["id"] for _, a in page.tags if (a.get("id") or "").startswith("plot-")}
    assert places == {f"plot-{name}" for name in plots}
    assert {"benchmark", "curves", "importance", "parallel", "pareto", "slice-0"} <= set(plots)
    told = {int(re.findall(r"trial (\d+),", trace["hovertemplate"])[0]): trace for trace in plots["curves"]["data"]}
    assert set(told) == {trial for trial, points in data.curves.items() if points}
    for row in data.rows:
        if row.state == "PRUNED":
            assert told[row.trial]["opacity"] < 0.5
            assert len(told[row.trial]["x"]) == row.rung
        if row.state == "COMPLETE":
            assert told[row.trial]["opacity"] > 0.5


def test_the_queries_that_changed_are_those_of_the_scores(run: Path, data: RunData) -> None:
    task = load_task(run / "data", "test", "concept")
    base, best = (Scores.load(run / "benchmark" / f"{label}-concept.npz") for label in ("base", "best"))
    change = {q: b - a for q, a, b in zip(base.query_ids, base.values(METRIC), best.values(METRIC), strict=True)}
    ranked = sorted(change.values())
    assert [m.after - m.before for m in data.improved] == pytest.approx([c for c in ranked[::-1] if c > 0][:10])
    assert [m.after - m.before for m in data.worsened] == pytest.approx([c for c in ranked if c < 0][:10])
    for mover in [*data.improved, *data.worsened]:
        query = next(q for q, text in task.queries.items() if text == mover.query)
        place = base.query_ids.index(query)
        for scores, found in ((base, mover.found_before), (best, mover.found_after)):
            assert [f.text for f in found] == [task.corpus[i] for i in scores.top_ids_QK[place][:3]]
            assert [f.relevant for f in found] == [i in task.qrels[query] for i in scores.top_ids_QK[place][:3]]
        assert mover.relevant == len(task.qrels[query])


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert not {"src", "href", "srcset", "action", "data", "background"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    style = page.code[0]
    assert "url(" not in style
    assert "@import" not in style


def test_text_of_the_users_stays_text(nasty: Path) -> None:
    html = write_report(nasty).read_text(encoding="utf-8")
    page = Page(html)
    assert page.count("script") == 3  # the figures' data, Plotly and the page's own
    assert page.count("img") == page.count("i") == 0
    assert "document.title='pwned'" in page.text
    assert "{{7*7}}" in page.text
    plots = next(code for code in page.code if '"curves"' in code[:200_000])
    assert "<" not in plots
    texts = json.dumps(json.loads(plots)["parallel"])
    assert "&lt;b&gt;ase" in texts  # Plotly reads some HTML in its labels
    assert "<b>ase" not in texts


def test_images_are_written_and_readable(run: Path, nasty: Path) -> None:
    for folder in (run, nasty):
        write_report(folder)
        names = {path.name for path in (folder / "plots").iterdir()}
        assert {"benchmark.png", "curves.png", "pareto.png", "slices.png"} <= names
        for name in names:
            with Image.open(folder / "plots" / name) as image:
                assert image.format == "PNG"
                assert min(image.size) > 200


def test_a_run_that_has_not_ended_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    before = (run / "study.journal").read_bytes()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "The search has not come to its benchmark yet" in page.text
    assert "Base against best" not in page.text
    assert not (run / "plots" / "benchmark.png").exists()
    assert (run / "study.journal").read_bytes() == before


def test_a_report_counts_only_trials_that_were_to_run(tmp_path: Path) -> None:
    """Not those that a constraint forbids, nor those that repeat a known configuration."""
    run = make_run(
        tmp_path,
        budget={"trials": 8},
        pruner={"name": "none"},
        space={"r": [2, 4, 8], "batch_size": [16, 32]},
        constraints=["r * batch_size <= 64"],
    )
    journal = (run / "study.journal").read_text()
    assert '"infeasible"' in journal
    data = gather(run)
    assert [row.trial for row in data.rows] == [row.trial for row in read_leaderboard(run)[1]]
    assert len(data.rows) == 8
    assert set(data.curves) == {row.trial for row in data.rows}
    assert {row.state for row in data.rows} <= {"COMPLETE", "FAIL"}
    assert all(row.config["r"] * row.config["batch_size"] <= 64 for row in data.rows)
    assert all(value in (2, 4) for axis in data.axes if axis.field == "r" for value in axis.values.values())
    assert "The pruner stopped 0 of 8 trials" in Page(write_report(run).read_text(encoding="utf-8")).text


def test_a_smoke_run_says_that_its_scores_mean_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, "toy-smoke", base=str(tmp_path / "runs" / ".stand-ins" / "toy" / "base"))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "SMOKE RUN." in page.text
    assert "its scores mean nothing" in page.text
    assert "Fine-tuning helps" not in page.text


def test_the_report_says_no_more_than_the_interval_does(data: RunData) -> None:
    def with_interval(low: float, high: float) -> tuple[str, str]:
        assert data.benchmark is not None
        part = data.benchmark.protocols["concept"]
        compared = replace(part, comparisons={METRIC: replace(part.comparisons[METRIC], low=low, high=high)})
        return verdict(replace(data, benchmark=replace(data.benchmark, protocols={"concept": compared})))

    assert with_interval(0.01, 0.03)[0] == "good"
    assert with_interval(-0.03, -0.01)[0] == "bad"
    assert with_interval(-0.01, 0.01)[0] == "open"
    assert "No gain is shown" in with_interval(0.0, 0.01)[1]


def test_candidates_and_guard_have_a_table_a_curve_and_a_sentence(run: Path, page: Page) -> None:
    benchmark = Benchmark.read(run / "benchmark.json")
    assert benchmark.guard is not None
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {"candidates", "plot-strengths"} <= ids
    assert benchmark.guard.reason in page.text
    assert guarded(benchmark) in page.text
    for candidate in benchmark.candidates:
        assert candidate.name in page.text
        assert f"{candidate.guard:.4f}" in page.text
    plots = json.loads(next(code for code in page.code if '"strengths"' in code[:200_000]))
    (curve,) = plots["strengths"]["data"]
    assert curve["text"] == ["0.5", "0.75", "1", "1.25"]


def test_the_header_names_all_trials_of_a_soup_and_the_choice_where_another_base_was_exported(data: RunData) -> None:
    assert data.benchmark is not None
    single = data.benchmark.candidates[0]
    assert f"Exported: {single.name}, merged from trial {single.trials[0]}" in render(data)
    soup = replace(single, name="greedy-soup:other", members=(Share(2, "c", 0.5), Share(1, "c", 0.5)))
    exported = replace(data.benchmark.best, trial=2, candidate=soup.name)
    benchmark = replace(data.benchmark, candidates=(*data.benchmark.candidates, soup), best=exported)
    assert "Exported: greedy-soup:other, merged from trials 2, 1 on" in render(replace(data, benchmark=benchmark))
    assert best_single(benchmark, chosen=2) == single.trials[0]


def test_the_bytes_of_a_run_are_told(run: Path, data: RunData) -> None:
    told = dict(cost(data))["disk"]
    assert "embtune clean" in told
    assert "data/ " in told
    whole = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert 0 < sum(data.disk.values()) <= whole  # the report itself came later


def test_a_benchmark_of_before_candidates_still_reads(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    path = tmp_path / "old" / "benchmark.json"
    document = json.loads(path.read_text())
    del document["candidates"], document["guard"], document["best"]["candidate"]
    path.write_text(json.dumps(document))
    page = Page(write_report(tmp_path / "old").read_text(encoding="utf-8"))
    assert "candidates" not in {attributes.get("id") for _, attributes in page.tags}
    assert (picked(Benchmark.read(path)), guarded(Benchmark.read(path))) == ("", "")


def test_an_older_benchmark_without_optimism_still_reads(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    path = tmp_path / "old" / "benchmark.json"
    document = json.loads(path.read_text())
    del document["optimism"], document["seconds"]
    path.write_text(json.dumps(document))
    assert "Optimism" not in Page(write_report(tmp_path / "old").read_text(encoding="utf-8")).text


def test_dev_scores_of_a_pool_stand_beside_those_of_the_whole_corpus(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "pooled")
    path = tmp_path / "pooled" / "benchmark.json"
    document = json.loads(path.read_text())
    document["dev_pool"] = {"passages": 12345, "of": 1000000, "pooled": 0.7182, "whole": 0.6931}
    path.write_text(json.dumps(document))
    page = Page(write_report(tmp_path / "pooled").read_text(encoding="utf-8"))
    told = pool(Benchmark.read(path))
    for figure in ("12,345 of 1,000,000 passages", "0.7182", "0.6931"):
        assert figure in page.text
        assert figure in told


def test_the_command_writes_it_and_refuses_what_is_no_run(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", str(run)])
    assert done.output.strip() == str(run / "report.html")
    with pytest.raises(InputError, match=r"no spec\.json; expected the folder of a search"):
        write_report(tmp_path)


def test_the_front_is_what_no_complete_trial_beats(data: RunData) -> None:
    complete = [r for r in data.rows if r.state == "COMPLETE"]
    kept = front(data.rows)
    assert kept
    for row in complete:
        beaten = any(
            (o.trainable or 0) <= (row.trainable or 0)
            and (o.score or 0) >= (row.score or 0)
            and (o.trainable, o.score) != (row.trainable, row.score)
            for o in complete
        )
        assert (row in kept) != beaten


def test_axes_place_values_on_their_own_scale() -> None:
    lr = Axis("lr", {}, (), 1e-5, 1e-3, log=True)
    assert [lr.place(v) for v in (1e-5, 1e-4, 1e-3)] == pytest.approx([0, 0.5, 1])
    choice = Axis("r", {}, (4, 8, 32))
    assert [choice.place(v) for v in (4, 8, 32)] == [0, 0.5, 1]
    assert [label for _, label in choice.ticks()] == ["4", "8", "32"]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
def test_chromium_draws_every_figure_runs_no_foreign_text_and_complains_of_nothing(nasty: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    click = "<script>document.querySelectorAll('#leaderboard th button')[2].click()</script></body>"
    page.write_text(write_report(nasty).read_text(encoding="utf-8").replace("</body>", click), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=10000 --dump-dom"
    )
    done = subprocess.run(
        [str(CHROMIUM), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert "<title>toy: embtune report</title>" in done.stdout
    drawn = Page(done.stdout)
    places = [a for _, a in drawn.tags if (a.get("id") or "").startswith("plot-")]
    assert len(places) > 6
    assert all("js-plotly-plot" in (a.get("class") or "") for a in places)
    shown = [float(score) for score in re.findall(r'<td data-key="[^"]*" class="n">(0\.\d{4}) ±', done.stdout)]
    assert shown == sorted(round(row.score, 4) for row in gather(nasty).rows if row.score is not None)
