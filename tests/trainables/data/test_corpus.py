"""What dev and test search, what counts as right there, and the pool of a large corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

import trainables.prepare as data_module
from evaluation.errors import InputError
from evaluation.retrieval import Scores, evaluate
from evaluation.task import RetrievalTask
from tests.conftest import TinyBase
from tests.kit.toy import trial_data
from tests.trainables.data.test_sources import beir
from trainables.config import TrialConfig
from trainables.data.config import DataConfig
from trainables.data.dev_pool import make_dev_pool
from trainables.data.prepared import DEV_POOL, REPORT, TrialData, load_report, load_task
from trainables.prepare import prepare
from trainables.train import train


class ToyEncoder:
    """Embeds a text as the numbers that its bytes seed."""

    def encode(self, inputs: list[str], **_: Any) -> Any:
        return np.array([np.random.default_rng(list(text.encode())).standard_normal(8) for text in inputs])

    encode_query = encode_document = encode


def prepared(folder: Path, source: str, **options: Any) -> Path:
    prepare(DataConfig.model_validate({"source": source, **options}), folder, 0, folder / "data")
    return folder / "data"


def answers(task: RetrievalTask) -> dict[str, dict[str, int]]:
    """Query text -> relevant text -> grade."""
    return {
        task.queries[q]: {task.corpus[p].split()[-1]: grade for p, grade in grades.items()}
        for q, grades in task.qrels.items()
    }


def graded(folder: Path) -> None:
    """Questions 2 and 3 of test share passage 3; question 0 of train has passages of two grades."""
    corpus = {f"d{at}": f"le passage {at}" for at in range(9)} | {"d9": "9"}
    qrels = {
        "train": {"q0": {"d0": 2, "d4": 1}},
        "dev": {"q1": {"d1": 3, "d9": 1, "d0": 0}},
        "test": {"q2": {"d2": 1, "d3": 2}, "q3": {"d3": 1}, "q4": {"d5": 2}},
    }
    queries = {f"q{at}": f"question {at}" for at in range(5)}
    together = {q: grades for own in qrels.values() for q, grades in own.items()}
    RetrievalTask("all", corpus, queries, together).save_beir(folder, "train")
    for part, own in qrels.items():
        lines = [f"{q}\t{p}\t{grade}" for q, grades in own.items() for p, grade in grades.items()]
        (folder / "qrels" / f"{part}.tsv").write_text("\n".join(lines) + "\n")


TEST_ANSWERS = {"question 2": {"2": 1, "3": 2}, "question 3": {"3": 1}, "question 4": {"5": 2}}


def test_a_beir_folder_is_searched_whole_in_each_part(tmp_path: Path) -> None:
    beir(tmp_path / "b", {"train": "q0\td0\t1\n", "dev": "q1\td1\t1\n", "test": "q2\td2\t1\nq3\td3\t1\n"})
    out = prepared(tmp_path, "b")
    dev, test = load_task(out, "dev"), load_task(out, "test")
    assert list(dev.corpus.values()) == list(test.corpus.values())
    assert set(test.corpus.values()) == {f"Titre {at} texte {at}" for at in range(5)}  # d4 answers no query
    assert len(load_task(prepared(tmp_path, "b", distractors=False), "test").corpus) == 2


def test_beir_folders_named_for_each_part_are_all_searched(tmp_path: Path) -> None:
    beir(tmp_path / "b", {"train": "q0\td0\t1\n", "dev": "q1\td1\t1\n"})
    beir(tmp_path / "c", {"test": "q2\td2\t1\nq3\td3\t1\n"})
    prepare(
        DataConfig.model_validate({"source": {"train": "b", "dev": "b", "test": "c"}}), tmp_path, 0, tmp_path / "data"
    )
    assert len(load_task(tmp_path / "data", "dev").corpus) == 5


def test_relevance_in_a_beir_folder_is_that_of_its_qrels_with_their_grades(tmp_path: Path) -> None:
    graded(tmp_path / "b")
    out = prepared(tmp_path, "b", drop={"min_positive": 2})
    # Questions 2 and 3 share a passage, so they are one group; and yet passage 2 does not answer question 3.
    task = load_task(out, "test")
    assert answers(task) == TEST_ANSWERS
    assert task.groups["q0"] == task.groups["q1"] != task.groups["q2"]
    # The rule drops the row of passage 9, which is searched all the same and stays right.
    assert answers(load_task(out, "dev")) == {"question 1": {"1": 3, "9": 1}}
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]
    assert [line["grade"] for line in lines] == [2, 1]


GRADES = (3, 2, 1, 2, 1, 0, 0)


@pytest.mark.parametrize("part", ["dev", "test"])
def test_scores_on_graded_qrels_are_those_of_ir_measures(tmp_path: Path, part: str) -> None:
    """The folder prepared for a search, against the source's own qrels and ids."""
    rng = np.random.default_rng(5)
    corpus = {f"d{at}": f"passage {at}" for at in range(60)}
    queries = {f"q{at}": f"question {at}" for at in range(30)}
    # Five questions share ten passages and no others, so that no part loses any to another.
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for q in range(30):
        judged = rng.permutation(np.arange(q // 5 * 10, q // 5 * 10 + 10))[: len(GRADES)]
        own = qrels[("train", "dev", "test")[q // 10]]
        own[f"q{q}"] = {f"d{p}": grade for p, grade in zip(judged, GRADES, strict=True)}
    together = {q: grades for judged in qrels.values() for q, grades in judged.items()}
    RetrievalTask("all", corpus, queries, together).save_beir(tmp_path / "b", "train")
    for name, own in qrels.items():
        lines = [f"{q}\t{p}\t{grade}" for q, grades in own.items() for p, grade in grades.items()]
        (tmp_path / "b" / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    task = load_task(prepared(tmp_path, "b"), part)
    encoder = ToyEncoder()
    scores = evaluate(encoder, task, ("ndcg@10", "recall@10", "mrr@10", "map@10"))
    cosines = _unit(encoder.encode(list(queries.values()))) @ _unit(encoder.encode(list(corpus.values()))).T
    run = {q: {p: float(cosines[i, j]) for j, p in enumerate(corpus)} for i, q in enumerate(queries)}
    ids = {text: q for q, text in queries.items()}
    asked = {ids[task.queries[q]]: at for at, q in enumerate(scores.query_ids)}
    kept = {q: qrels[part][q] for q in asked}
    measures = {"ndcg@10": ir_measures.nDCG @ 10, "recall@10": ir_measures.R @ 10, "map@10": ir_measures.AP @ 10}
    told = 0
    for measured in ir_measures.iter_calc(list(measures.values()), kept, {q: run[q] for q in kept}):
        (name,) = [name for name, measure in measures.items() if measure == measured.measure]
        assert scores.per_query[name][asked[measured.query_id]] == pytest.approx(measured.value, abs=1e-9)
        told += 1
    assert told == 3 * len(kept) > 0


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_training_takes_pairs_of_min_grade_and_dev_and_test_keep_all(tmp_path: Path) -> None:
    graded(tmp_path / "b")
    out = prepared(tmp_path, "b", min_grade=2)
    assert list(TrialData.load(out).train["positive"]) == ["le passage 0"]
    assert answers(load_task(out, "test")) == TEST_ANSWERS
    (finding,) = [f for f in load_report(out).findings if f.name == "grades below min_grade"]
    assert finding.count == 1
    with pytest.raises(InputError, match="train part is empty: of its 2 rows 2 have a grade below min_grade 4"):
        prepared(tmp_path, "b", min_grade=4)


def test_a_pair_that_two_documents_give_twice_has_its_higher_grade(tmp_path: Path) -> None:
    graded(tmp_path / "b")
    rows = [json.loads(line) for line in (tmp_path / "b" / "corpus.jsonl").read_text("utf-8").splitlines()]
    rows[0]["text"] = rows[4]["text"] = "un seul texte"
    (tmp_path / "b" / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "b" / "qrels" / "train.tsv").write_text("q0\td0\t1\nq0\td4\t2\n")
    out = prepared(tmp_path, "b", min_grade=2)
    assert list(TrialData.load(out).train["positive"]) == ["un seul texte"]
    assert len(load_task(out, "dev").corpus) == 9


# Pairs


def pairs(folder: Path, rows: list[tuple[str, str, str, str]]) -> str:
    names = ("anchor", "positive", "concept", "split")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    (folder / "pairs.jsonl").write_text("\n".join(lines), "utf-8")
    return "pairs.jsonl"


def test_a_right_passage_of_another_part_does_not_count_as_wrong(tmp_path: Path) -> None:
    rows = [("t1", "pt1", "T1", "train"), ("e1", "pe1", "E1", "test"), ("e2", "pe2", "E2", "test")]
    # D shares a passage with E1 and H an anchor with E2, so one row of each is left out of dev; D's passage is right
    # all the same, and H's other passage answers e2.
    rows += [("d1", "pd1", "D", "dev"), ("d1", "pe1", "D", "dev"), ("e2", "ph1", "H", "dev"), ("h2", "ph2", "H", "dev")]
    out = prepared(tmp_path, pairs(tmp_path, rows))
    assert answers(load_task(out, "dev")) == {"d1": {"pd1": 1, "pe1": 1}, "h2": {"ph2": 1}}
    assert answers(load_task(out, "test")) == {"e1": {"pe1": 1}, "e2": {"pe2": 1, "ph2": 1}}
    assert set(load_task(out, "dev").corpus.values()) == {"pt1", "pe1", "pe2", "pd1", "ph2"}


def test_a_data_folder_of_an_earlier_version_gives_the_task_that_it_gave(tmp_path: Path) -> None:
    """Its scores and its passage ids are of that task: the part's own passages, or with distractors those of all."""
    rows = [(f"q{at}", f"p{at}", f"c{at}", ("train", "dev", "test")[at % 3]) for at in range(12)]
    out = prepared(tmp_path, pairs(tmp_path, rows))
    report = json.loads((out / REPORT).read_text())
    for name in ("corpus.jsonl", "answers.jsonl"):
        (out / name).unlink()
    for part in ("train", "dev", "test"):
        lines = [json.loads(line) for line in (out / f"{part}.jsonl").read_text().splitlines()]
        text = "".join(json.dumps({k: v for k, v in line.items() if k != "grade"}) + "\n" for line in lines)
        (out / f"{part}.jsonl").write_text(text)
    for key in ("judged", "pool_depth"):
        del report[key]
    del report["config"]["min_grade"]
    for distractors, expected in ((False, [1, 4, 7, 10]), (True, [1, 4, 7, 10, 0, 3, 6, 9, 2, 5, 8, 11])):
        report["config"]["distractors"] = distractors
        (out / REPORT).write_text(json.dumps(report))
        assert load_task(out, "dev").corpus == {f"p{i}": f"p{at}" for i, at in enumerate(expected)}
    assert len(TrialData.load(out).train) == 4


# The pool


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "POOL_DEPTH", 1)


def configs(*bases: Path) -> list[TrialConfig]:
    return [TrialConfig(base=str(base), max_length=16, precision="fp32") for base in bases]


def test_dev_searches_one_pool_of_the_relevant_and_what_each_base_finds_first(
    tmp_path: Path, tiny_base: TinyBase, small_pools: None
) -> None:
    whole = trial_data(tmp_path)  # no pool is made yet
    bases = configs(tiny_base("bert"), tiny_base("xlm-roberta"))
    expected = {p for grades in whole.dev.qrels.values() for p in grades}
    pools = []
    for asked in (bases[:1], bases[1:], bases, bases[::-1]):
        make_dev_pool(whole.folder, asked, tmp_path / "cache", "cpu")
        pools.append(json.loads((whole.folder / DEV_POOL).read_text())["passages"])
    assert set(pools[0]) | set(pools[1]) == set(pools[2])
    assert pools[2] == pools[3]
    assert expected < set(pools[0]) < set(pools[2]) < set(whole.dev.corpus)
    dev = TrialData.load(whole.folder).dev
    assert dev.corpus == {i: text for i, text in whole.dev.corpus.items() if i in set(pools[2])}
    assert (dev.queries, dev.qrels, dev.groups) == (whole.dev.queries, whole.dev.qrels, whole.dev.groups)
    assert (
        len(load_task(whole.folder, "test").corpus)
        == len(load_task(whole.folder, "dev").corpus)
        == len(whole.dev.corpus)
    )


def test_a_trial_is_scored_on_the_pool(tmp_path: Path, tiny_base: TinyBase, small_pools: None) -> None:
    trial_data(tmp_path)
    (config,) = configs(tiny_base("bert"))
    make_dev_pool(tmp_path / "data", [config], tmp_path / "cache", "cpu")
    (tmp_path / "trial").mkdir()
    base = config.model_copy(update={"method": "none"})
    rung = train(base, TrialData.load(tmp_path / "data"), lambda _: None, folder=tmp_path / "trial", device="cpu")
    found = set(Scores.load(Path(rung.folder) / "scores.npz").top_ids_QK.ravel().tolist())
    assert found <= set(json.loads((tmp_path / "data" / DEV_POOL).read_text())["passages"])


def test_a_corpus_that_is_small_or_the_parts_own_has_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "POOL_DEPTH", 2)  # for 3 dev questions at most 6 passages, so from 12 on
    rows = [(f"q{at}", f"p{at}", f"c{at}", ("train", "dev", "test")[at % 3]) for at in range(9)]
    assert load_report(prepared(tmp_path, pairs(tmp_path, rows))).pool_depth is None
    rows += [(f"more {at}", f"p{at}", f"c{at}", "train") for at in range(9, 12)]
    assert load_report(prepared(tmp_path, pairs(tmp_path, rows))).pool_depth == 2
    assert load_report(prepared(tmp_path, pairs(tmp_path, rows), distractors=False)).pool_depth is None
