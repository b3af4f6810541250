"""Tasks from pairs and from BEIR folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.benchmark.task_files import load_tasks
from evaluation.errors import InputError
from evaluation.task import RetrievalTask

ANCHORS = ["SG", "Que signifie SG ?", "SG", "DGFiP", "DGFiP ", "seuil"]
POSITIVES = [
    "Le SG est le Secrétariat  général.",
    "Le SG coordonne les services.",
    "SG : sous-groupe de travail.",
    "La DGFiP recouvre l'impôt.",
    "La  DGFiP recouvre l'impôt.",
    "Un seuil déclenche la procédure.",
]
CONCEPTS = ["sg", "sg", "groupe", "dgfip", "dgfip", "seuil"]
KINDS = ["definition", "context", "definition", "definition", "definition", "context"]


def small(protocol: str = "concept") -> RetrievalTask:
    return RetrievalTask.from_pairs("t", ANCHORS, POSITIVES, CONCEPTS, KINDS, protocol)  # type: ignore[arg-type]


def test_concept_protocol() -> None:
    task = small()
    assert list(task.queries.values()) == ["SG", "Que signifie SG ?", "DGFiP", "seuil"]
    assert len(task.corpus) == 5  # the two rows of DGFiP differ in white space only
    by_text = {task.queries[q]: {task.corpus[p] for p in grades} for q, grades in task.qrels.items()}
    # SG stands under two concepts: the passages of both are right for it, not for the question on the first alone.
    assert by_text["SG"] == {POSITIVES[0], POSITIVES[1], POSITIVES[2]}
    assert by_text["Que signifie SG ?"] == {POSITIVES[0], POSITIVES[1]}
    assert by_text["DGFiP"] == {POSITIVES[3]}
    groups = {task.queries[q]: group for q, group in task.groups.items()}
    assert groups == {"SG": "sg", "Que signifie SG ?": "sg", "DGFiP": "dgfip", "seuil": "seuil"}


def test_definition_protocol_is_strict_and_names_what_it_leaves_out() -> None:
    task = small("definition")
    by_text = {task.queries[q]: {task.corpus[p] for p in grades} for q, grades in task.qrels.items()}
    assert by_text["Que signifie SG ?"] == {POSITIVES[0]}
    assert "seuil" not in by_text
    assert len(task.corpus) == 5  # the other passages stay as distractors
    assert task.left_out == ("left out 1 query ('seuil'): no definition among the passages of their concept",)


def test_distractors_and_blank_rows() -> None:
    task = RetrievalTask.from_pairs("t", ["a", " ", "b"], ["x", "y", "z"], [1, 2, 3], distractors=["x ", "w", ""])
    assert list(task.corpus.values()) == ["x", "z", "w"]
    assert task.left_out == ("left out 1 row (row 2): blank anchor or positive",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": {}}, "corpus is empty"),
        ({"queries": {}, "qrels": {}}, "no queries"),
        ({"qrels": {"q": {"p": 1}, "other": {"p": 1}}}, r"qrels name a query that does not exist: 1 id \('other'\)"),
        ({"qrels": {"q": {"p": 1, "nope": 1}}}, r"qrels name a passage that does not exist: 1 id \('nope'\)"),
        ({"qrels": {"q": {"p": 0}}}, r"1 query \(q\) without a relevant passage"),
        ({"qrels": {}}, r"1 query \(q\) without a relevant passage"),
        ({"groups": {"other": "g"}}, "groups name a query that does not exist"),
    ],
)
def test_bad_tasks(change: dict[str, dict[str, object]], message: str) -> None:
    parts: dict[str, object] = {"corpus": {"p": "text"}, "queries": {"q": "text"}, "qrels": {"q": {"p": 1}}}
    with pytest.raises(InputError, match=message):
        RetrievalTask("t", **(parts | change))  # type: ignore[arg-type]


def test_bad_pairs() -> None:
    with pytest.raises(InputError, match="columns of different lengths"):
        RetrievalTask.from_pairs("t", ["a"], ["x", "y"], [1, 2])
    with pytest.raises(InputError, match="needs a kind for each row"):
        RetrievalTask.from_pairs("t", ["a"], ["x"], [1], protocol="definition")
    with pytest.raises(InputError, match="no query left of 1 rows"):
        RetrievalTask.from_pairs("t", ["a"], ["x"], [1], ["context"], protocol="definition")
    with pytest.raises(InputError, match="expected concept or definition"):
        small("strict")


def test_beir_round_trip(tmp_path: Path) -> None:
    task = small()
    task.save_beir(tmp_path / "bercy", "dev")
    read = RetrievalTask.load_beir(tmp_path / "bercy")
    assert read.name == "bercy/dev"
    assert (read.corpus, read.queries, read.qrels, read.groups) == (task.corpus, task.queries, task.qrels, task.groups)
    assert {path.name for path in (tmp_path / "bercy").rglob("*.*")} == {"corpus.jsonl", "queries.jsonl", "dev.tsv"}


def test_beir_split_choice_and_other_splits_queries(tmp_path: Path) -> None:
    small().save_beir(tmp_path, "train")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\tp3\t2\nq0\tp0\t0\n", encoding="utf-8")
    task = RetrievalTask.load_beir(tmp_path)
    assert task.name.endswith("/test")
    assert list(task.queries) == ["q2"]
    assert task.qrels == {"q2": {"p3": 2}}
    assert task.left_out == ("left out 1 query (q0): no grade >= 1 in qrels/test.tsv",)
    assert RetrievalTask.load_beir(tmp_path, "train").name.endswith("/train")
    with pytest.raises(InputError, match=r"no split 'dev' in qrels/, expected one of test, train"):
        RetrievalTask.load_beir(tmp_path, "dev")


def test_beir_title_is_joined(tmp_path: Path) -> None:
    small().save_beir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"p{i}", "title": "Titre", "text": "corps"}) + "\n" for i in range(5)), "utf-8"
    )
    assert set(RetrievalTask.load_beir(tmp_path).corpus.values()) == {"Titre corps"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", "{", r"corpus.jsonl:1: not JSON"),
        ("corpus.jsonl", "[1]", r"corpus.jsonl:1: list, expected one object"),
        ("corpus.jsonl", '{"_id": "p0"}', r"corpus.jsonl:1: key 'text' is None"),
        (
            "queries.jsonl",
            '{"_id":"q","text":"a"}\n{"_id":"q","text":"b"}',
            r"queries.jsonl:2: id 'q' stands there twice",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\tp0\n", r"test.tsv:2: .*expected query id"),
        ("qrels/test.tsv", "q0\tp0\thigh\n", r"test.tsv:1: .*a whole grade"),
        ("qrels/test.tsv", "q9\tp0\t1\n", r"qrels name a query that does not exist: 1 id \('q9'\)"),
        ("qrels/test.tsv", "q0\tp9\t1\n", r"qrels name a passage that does not exist: 1 id \('p9'\)"),
    ],
)
def test_bad_beir(tmp_path: Path, file: str, content: str, message: str) -> None:
    small().save_beir(tmp_path)
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        RetrievalTask.load_beir(tmp_path)


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_file(tmp_path: Path) -> None:
    columns = zip(ANCHORS, POSITIVES, CONCEPTS, KINDS, strict=True)
    rows: list[dict[str, object]] = [{"anchor": a, "positive": p, "cluster_id": c, "kind": k} for a, p, c, k in columns]
    concept, definition = load_tasks(write_rows(tmp_path / "bercy.jsonl", rows), protocols=("concept", "definition"))
    assert (concept.name, definition.name) == ("bercy (concept)", "bercy (definition)")
    assert concept.qrels == small().qrels
    assert definition.qrels == small("definition").qrels


def test_pairs_file_with_splits(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"anchor": f"a{i}", "positive": f"p{i // 2}", "split": "dev" if i < 4 else "train"} for i in range(10)
    ]
    path = write_rows(tmp_path / "s.jsonl", rows)
    (task,) = load_tasks(path)
    assert task.name == "s/dev"
    assert len(task.queries) == 4
    assert len(set(task.groups.values())) == 2  # no concepts in the file: rows with one passage are one
    assert len(load_tasks(path, "train")[0].queries) == 6
    with pytest.raises(InputError, match=r"no rows of split 'test', expected one of dev, train"):
        load_tasks(path, "test")


def test_pairs_file_names_what_it_leaves_out_and_reads_triplets(tmp_path: Path) -> None:
    rows = [
        {"anchor": "SG", "positive": "Secrétariat général", "split": "test", "negative": ["autre", "encore"]},
        {"anchor": "DGFiP", "positive": "Finances publiques", "split": "test"},
        {"anchor": "CET", "positive": "Compte épargne-temps"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\n" for row in rows).encode())  # as Excel writes it
    (task,) = load_tasks(path)
    assert list(task.queries.values()) == ["SG", "DGFiP"]
    assert task.left_out == ("left out 1 row (line 3): no split, where others have one",)
    assert task.triplets == (("SG", "Secrétariat général", "autre"), ("SG", "Secrétariat général", "encore"))


def test_a_text_that_is_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"anchor": "a", "positive": "b"}\n{"anchor": "\xe9", "positive": "c"}\n')
    with pytest.raises(InputError, match=r"pairs\.jsonl:2: not UTF-8 text"):
        load_tasks(path)


def test_a_query_that_no_split_judges_is_named(tmp_path: Path) -> None:
    small().save_beir(tmp_path / "t")
    with (tmp_path / "t" / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "lost", "text": "?"}\n')
    assert RetrievalTask.load_beir(tmp_path / "t").left_out == ("left out 1 query (lost): no split judges them",)


def test_bad_task_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a BEIR folder or a \.jsonl file"):
        load_tasks(tmp_path / "nothing")
    with pytest.raises(InputError, match="no qrels"):
        load_tasks(tmp_path)
    with pytest.raises(InputError, match="no rows"):
        load_tasks(write_rows(tmp_path / "e.jsonl", []))
    with pytest.raises(InputError, match=r"b.jsonl:2: key 'positive' is None"):
        load_tasks(write_rows(tmp_path / "b.jsonl", [{"anchor": "a", "positive": "x"}, {"anchor": "a"}]))
    with pytest.raises(InputError, match="definition protocol needs rows"):
        load_tasks(write_rows(tmp_path / "c.jsonl", [{"anchor": "a", "positive": "x"}]), protocols=("definition",))
