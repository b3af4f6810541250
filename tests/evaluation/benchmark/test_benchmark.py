"""The benchmark on real tiny models: bases, prompts, statistics, files; MTEB's own evaluation as an oracle."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from sentence_transformers import SentenceTransformer

from evaluation.benchmark.models import load_model, resolve_model
from evaluation.benchmark.run import benchmark, run_benchmark
from evaluation.benchmark.task_files import load_tasks
from evaluation.compare import compare, holm
from evaluation.errors import InputError
from evaluation.retrieval import evaluate
from evaluation.task import RetrievalTask
from search.cli import cli
from tests.conftest import TEXTS, TinyBase
from trainables.export.merge import base_model


@pytest.fixture(scope="module")
def base(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with other weights, saved as an export is: runs/demo/best with embtune.json."""
    model = SentenceTransformer(str(base), device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    run = tmp_path_factory.mktemp("runs") / "demo"
    model.save(str(run / "best"))
    (run / "best" / "embtune.json").write_text(json.dumps({"base": str(base)}), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of 30 concepts with two queries each."""
    rng = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    passages = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    anchors = [" ".join(passage.split()[:5]) for passage in passages]
    path = tmp_path_factory.mktemp("tasks") / "bercy"
    RetrievalTask.from_pairs("t", anchors, passages, [i // 2 for i in range(60)]).save_beir(path)
    return path


def test_tuned_model_stands_beside_its_base(base: Path, tuned: Path, folder: Path, tmp_path: Path) -> None:
    """The base is added by itself, and the figures are those of evaluate() and compare()."""
    table = run_benchmark([folder], [str(tuned)], output=tmp_path / "out", cache=tmp_path / "cache")
    assert [row.task for row in table.rows] == ["bercy/test"] * 2
    assert sorted(row.model for row in table.rows) == sorted([str(base), str(tuned)])
    assert [row.score for row in table.rows] == sorted((row.score for row in table.rows), reverse=True)
    row = next(row for row in table.rows if row.model == str(tuned))
    task = RetrievalTask.load_beir(folder)
    before, after = (evaluate(load_model(str(path)), task) for path in (base, tuned / "best"))
    expected = compare(before, after, "ndcg@10")
    assert row.comparison == expected
    assert row.scores == after.means
    assert (row.base, row.dimensions, row.queries, row.groups) == (str(base), 32, 60, 30)

    written = json.loads((tmp_path / "out" / "benchmark.json").read_text(encoding="utf-8"))
    assert written == table.as_dict()
    assert written["rows"][0]["scores"]["ndcg@10"] == table.rows[0].score
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "benchmark.csv").read_text(encoding="utf-8"))))
    assert {line["model"]: float(line["ndcg@10"]) for line in lines} == {row.model: row.score for row in table.rows}
    markdown = (tmp_path / "out" / "benchmark.md").read_text(encoding="utf-8")
    assert f"{expected.difference:+.4f} ({expected.low:+.4f} to {expected.high:+.4f})" in markdown
    console = Console(width=200, record=True)
    console.print(table.rich())
    assert f"{expected.p_value:.4f}" in console.export_text()


def test_p_values_are_corrected_over_the_table(base: Path, tuned: Path, folder: Path) -> None:
    entries = [resolve_model(str(base)), resolve_model(str(tuned)), resolve_model(str(tuned / "best"))]
    table = benchmark(entries, [RetrievalTask.load_beir(folder)])
    assert len(table.rows) == 3  # the base was named, so it is not added again
    compared = [row for row in table.rows if row.comparison is not None]
    assert [row.p_holm for row in compared] == holm([row.comparison.p_value for row in compared if row.comparison])


def test_base_without_prompts_gets_those_of_its_tuned_model(base: Path, tuned: Path, folder: Path) -> None:
    def bare(location: str, revision: str | None) -> SentenceTransformer:
        model = load_model(location, revision)
        if Path(location) == base:
            model.prompts = {"query": "", "document": ""}
        return model

    task = RetrievalTask.load_beir(folder)
    table = benchmark([resolve_model(str(tuned))], [task], load=bare)
    given = next(row for row in table.rows if row.model == str(base))
    assert given.scores == evaluate(load_model(str(base)), task).means
    assert f"base {base} has no prompts of its own, so it got those of {tuned}" in table.notes


def test_base_that_cannot_be_had_is_a_note(tuned: Path, folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tuned / "best"), device="cpu")
    model.save(str(tmp_path / "m"))
    (tmp_path / "m" / "embtune.json").write_text(json.dumps({"base": str(tmp_path / "gone")}), encoding="utf-8")
    table = run_benchmark([folder], [str(tmp_path / "m")])
    assert len(table.rows) == 1
    assert table.rows[0].comparison is None
    assert any(note.startswith(f"no comparison with base {tmp_path / 'gone'}") for note in table.notes)


def test_optional_models_are_sized_and_timed_and_named_where_they_cannot_be_had(base: Path, folder: Path) -> None:
    """What `embtune benchmark --all-bases` does with every known base."""
    table = run_benchmark([folder], [], bases=[str(base), "someone/unheard-of"], load=base_model, sizes=True)
    (row,) = table.rows
    assert row.parameters == sum(p.numel() for p in base_model(str(base)).parameters())
    assert row.texts_per_second is not None
    assert row.texts_per_second > 0
    (note,) = table.notes
    assert note.startswith("left out someone/unheard-of: base: nothing is known of someone/unheard-of")
    assert "| parameters | texts/s |" in table.markdown()
    assert f"| {row.parameters:,} |" in table.markdown()
    assert "parameters |" not in benchmark([resolve_model(str(base))], load_tasks(folder)).markdown()
    with pytest.raises(InputError, match="no model to benchmark could be had: left out someone/unheard-of"):
        run_benchmark([folder], [], bases=["someone/unheard-of"], load=base_model)


def test_details(base: Path, folder: Path) -> None:
    table = run_benchmark([folder], [str(base)], details=True)
    details = table.rows[0].details
    assert details is not None
    assert set(details) == {"pairwise", "mini_retrieval", "near_concepts", "context", "truncated", "speed"}
    assert 0 <= details["mini_retrieval"]["recall@1"] <= 1
    assert details["context"]["recall@5"] == table.rows[0].scores["recall@5"]
    json.dumps(table.as_dict())
    console = Console(width=200, record=True)
    for shown in table.rich_details():
        console.print(shown)
    text = console.export_text()
    for line in ("pairwise: mean", "near concepts: margin", "context: precision@5", "texts/s of 16 tokens"):
        assert line in text
        assert line in table.markdown()


def test_triplets_of_the_pairs_are_told_apart(base: Path, tmp_path: Path) -> None:
    rows = [{"anchor": f"terme {i}", "positive": TEXTS[i], "negative": TEXTS[(i + 3) % 8]} for i in range(8)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    details = run_benchmark([path], [str(base)], details=True).rows[0].details
    assert details is not None
    model = load_model(str(base))
    anchors, positives, negatives = (
        encode([row[key] for row in rows], normalize_embeddings=True)
        for key, encode in (
            ("anchor", model.encode_query),
            ("positive", model.encode_document),
            ("negative", model.encode_document),
        )
    )
    margins = (anchors * positives).sum(axis=1) - (anchors * negatives).sum(axis=1)
    assert details["triplets"]["margin"] == pytest.approx(float(margins.mean()), abs=1e-6)
    assert details["triplets"]["accuracy"] == (margins > 0).mean()


def test_the_command_prints_each_format_keeps_embeddings_and_notes_lengths(
    tuned: Path, base: Path, folder: Path, tmp_path: Path
) -> None:
    settings = tuned / "best" / "tokenizer_config.json"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(json.dumps({**json.loads(before), "model_max_length": 12}), encoding="utf-8")
    call = ["benchmark", "--task", str(folder), "--model", str(tuned), "--cache", str(tmp_path / "kept")]
    try:
        shown = {name: CliRunner().invoke(cli, [*call, f"--{name}"]) for name in ("json", "csv", "markdown")}
        plain = CliRunner().invoke(cli, [*call, "--details"], terminal_width=200)
    finally:
        settings.write_text(before, encoding="utf-8")
    assert [result.exit_code for result in (*shown.values(), plain)] == [0] * 4
    scores = {row["model"]: row["score"] for row in json.loads(shown["json"].output)["rows"]}
    assert set(scores) == {str(base), str(tuned)}
    lines = csv.DictReader(io.StringIO(shown["csv"].output))
    assert {line["model"]: float(line["ndcg@10"]) for line in lines} == scores
    assert "| p (Holm) |" in shown["markdown"].output
    assert plain.output.count("tokens of a text") == 1
    assert f"{tuned} 12" in plain.output.replace("\n", "")
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 4  # queries and passages of each model
    assert CliRunner().invoke(cli, [*call, "--json", "--csv"]).exit_code == 2


def test_pairs_file_with_both_protocols(base: Path, tmp_path: Path) -> None:
    rows = [
        {"anchor": f"terme {i}", "positive": TEXTS[i], "cluster_id": i // 2, "kind": ["definition", "context"][i % 2]}
        for i in range(8)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = run_benchmark([path], [str(base)], protocols=("concept", "definition"))
    assert [row.task for row in table.rows] == ["pairs (concept)", "pairs (definition)"]


def test_bad_calls(base: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no task to benchmark on"):
        run_benchmark([], [str(base)])
    with pytest.raises(InputError, match="no model to benchmark"):
        run_benchmark([folder], [])
    with pytest.raises(InputError, match="is named twice"):
        run_benchmark([folder], [str(base), str(base)])
    with pytest.raises(InputError, match="expected one of recall"):
        run_benchmark([folder], [str(base)], metric="hits@3")
    with pytest.raises(InputError, match="no such folder, expected a model's folder"):
        run_benchmark([folder], [str(tmp_path / "gone")])
    with pytest.raises(InputError, match=r"no modules\.json or config\.json there"):
        run_benchmark([folder], [str(tmp_path)])
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be loaded"):
        run_benchmark([folder], [str(tmp_path)])
    (tmp_path / "embtune.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="expected a JSON object"):
        resolve_model(str(tmp_path))


def test_pickled_weights_are_refused(base: Path, folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(base), device="cpu")
    model.save(str(tmp_path))
    torch.save(model[0].state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        run_benchmark([folder], [str(tmp_path)])
