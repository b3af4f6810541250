"""Parts that the source names: taken as they are, what they share counted, and why one is empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evaluation.compare import Comparison
from search.cli import cli
from search.results.benchmark import Benchmark, Part, Winner
from search.screen.summary import gain
from tests.trainables.check.test_check import finding
from trainables.check.check import check_source
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData, load_task
from trainables.data.report import DataReport
from trainables.prepare import prepare


def answers(folder: Path, parts: dict[str, list[tuple[int, int]]], passages: int = 20) -> Path:
    """A BEIR folder of `passages` answers; of each part the (question, passage) judgements."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{at}", "title": "", "text": f"réponse {at}"} for at in range(passages)]
    asked = sorted({question for judged in parts.values() for question, _ in judged})
    queries = [{"_id": f"q{at}", "text": f"question {at} ?"} for at in asked]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)), "utf-8")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), "utf-8")
    for part, judged in parts.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"q{question}\td{passage}\t1" for question, passage in judged)]
        (folder / "qrels" / f"{part}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


# Ten answers, each with a question in train, dev and test; two questions have a second answer.
ALL_THREE: dict[str, list[tuple[int, int]]] = {
    "train": [*((at, at) for at in range(10)), (0, 1)],
    "dev": [(100 + at, at) for at in range(10)],
    "test": [*((200 + at, at) for at in range(10)), (203, 4)],
}


def reported(source: Any, folder: Path, **options: Any) -> DataReport:
    return check_source(DataConfig.model_validate({"source": source, **options}), folder, 42)[1]


def test_questions_on_the_same_answers_in_every_part_are_taken_as_they_are(tmp_path: Path) -> None:
    answers(tmp_path / "faq", ALL_THREE)
    report = reported("faq", tmp_path)
    assert report.unusable is None
    assert report.kept == {"train": 11, "dev": 10, "test": 11}
    assert (report.shared, report.unseen) == ("keep", "questions")
    shared = finding(report, "passages in several parts")
    assert (shared.count, shared.what) == (
        10,
        "passages that stand in several parts (train and dev 10, train and test 10, dev and test 10)",
    )
    assert report.corpus is not None
    assert report.corpus.model_dump() == {"passages": 20, "idle": 10, "questions": 30, "several": 2}
    prepare(report.config, tmp_path, 42, tmp_path / "data")
    test = load_task(tmp_path / "data", "test")
    found = {test.queries[query]: {test.corpus[p] for p in grades} for query, grades in test.qrels.items()}
    judged: dict[str, set[str]] = {}
    for question, passage in ALL_THREE["test"]:
        judged.setdefault(f"question {question} ?", set()).add(f"réponse {passage}")
    assert found == judged  # a question that shares an answer with another is not answered by the other's


def test_a_tested_question_is_not_trained_on_even_where_parts_are_kept(tmp_path: Path) -> None:
    leaking = {**ALL_THREE, "train": [*ALL_THREE["train"], (200, 15), (100, 16)], "dev": [*ALL_THREE["dev"], (201, 17)]}
    answers(tmp_path / "faq", leaking)
    report = reported("faq", tmp_path)
    assert report.kept == {"train": 11, "dev": 10, "test": 11}
    assert finding(report, "questions on two sides").count == 3
    assert finding(report, "questions in several parts").count == 3
    prepare(report.config, tmp_path, 42, tmp_path / "data")
    data = TrialData.load(tmp_path / "data")
    asked = set(data.dev.queries.values()) | set(load_task(tmp_path / "data", "test").queries.values())
    assert asked.isdisjoint(data.train["anchor"])


def test_left_out_of_parts_that_share_every_passage_says_why_nothing_is_left(tmp_path: Path) -> None:
    answers(tmp_path / "faq", ALL_THREE)
    report = reported("faq", tmp_path, shared="leave_out")
    assert report.unusable == (
        "split: the dev part is empty: of its 10 rows 10 are of a concept that test has too; "
        "data.shared: keep takes the parts as the source names them"
    )


TRAIN_ALL = [{"anchor": f"a{at}", "positive": f"p{at}", "split": "train"} for at in range(20)]


@pytest.mark.parametrize(
    ("rows", "options", "problem"),
    [
        (  # every question of dev is tested
            [
                *TRAIN_ALL,
                *(
                    {"anchor": f"d{at}", "positive": f"x{at}{part}", "split": part}
                    for at in range(4)
                    for part in ("dev", "test")
                ),
            ],
            {},
            "split: the dev part is empty: of its 4 rows 4 ask a question that test has too; "
            "give each part questions of its own",
        ),
        (  # dev holds the rows of test again
            [
                *TRAIN_ALL,
                *(
                    {"anchor": f"d{at}", "positive": f"x{at}", "split": part}
                    for at in range(4)
                    for part in ("dev", "test")
                ),
            ],
            {},
            "split: the dev part is empty: of its 4 rows 4 repeat another row; more data",
        ),
        (  # dev's rows are too short
            [*TRAIN_ALL, *({"anchor": "d", "positive": "x", "split": "dev"} for _ in range(4))],
            {"drop": {"min_anchor": 2}},
            "split: the dev part is empty: the source names it for 0 rows beside those dropped "
            "(4 anchor shorter than 2 characters); more data",
        ),
        (  # test is to be cut, and all that training has dev has too
            [
                {"anchor": f"{part}{at}", "positive": f"p{at}", "split": part}
                for at in range(10)
                for part in ("train", "dev")
            ],
            {},
            "split: the test part is empty: it is cut from training, 10 concepts in all, of which 10 stand in other "
            "parts, and a share of 0.15 of 0 took none; give the source a test part, or cut all parts by question with "
            "split.by: query",
        ),
        (  # every passage of training is tested
            [
                {"anchor": f"{part}{at}", "positive": f"p{at + 9 * (part == 'dev')}", "split": part}
                for at in range(4)
                for part in ("train", "dev", "test")
            ],
            {"shared": "leave_out"},
            "split: the train part is empty: of its 4 rows 4 are of a concept that dev or test has too; "
            "data.shared: keep takes the parts as the source names them",
        ),
        (
            [{"anchor": "a", "positive": "p"}],
            {},
            "split: the test part is empty: it is cut from training, 1 concepts in",
        ),
        (
            [{"anchor": "a", "positive": f"p{at}", "split": part} for at, part in enumerate(("train", "test", "test"))],
            {"shared": "leave_out"},
            "split: the test part holds 1 concept, and an interval needs 2: the source names it for 2 rows",
        ),
    ],
)
def test_an_empty_part_names_the_real_reason(
    rows: list[dict[str, Any]], options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    unusable = str(reported("pairs.jsonl", tmp_path, **options).unusable)
    assert unusable.startswith(problem)
    assert "\n" not in unusable


def test_leave_out_and_a_cut_by_question_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="takes away the known passages"):
        DataConfig.model_validate({"source": "a.jsonl", "split": {"by": "query"}, "shared": "leave_out"})


def test_data_check_tells_what_a_beir_folder_leaves_of_its_corpus(tmp_path: Path) -> None:
    answers(tmp_path / "faq", ALL_THREE)
    done = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "faq")])
    assert done.exit_code == 0
    told = " ".join(done.output.split())
    assert "corpus: 20 passages, of which 50% answer no question; 2 of 30 questions have several answers" in told
    assert "10 passages that stand in several parts" in told
    assert "The test part has questions that training and dev have not" in told


def test_the_verdict_claims_what_the_data_held_back(tmp_path: Path) -> None:
    comparison = Comparison("mrr@10", 0.5, 0.6, 0.1, 0.05, 0.15, 0.01, 10, 9)
    part = Part(10, 20, 9, {"mrr@10": 0.5}, {"mrr@10": 0.6}, {"mrr@10": comparison})
    path = tmp_path / "benchmark.json"
    Benchmark("mrr@10", "a/base", Winner(0, "best", 1.0), {"concept": part}).write(path)
    document = json.loads(path.read_text())
    ends = {}
    for unseen in (None, "concepts", "questions"):
        told = {k: v for k, v in document.items() if k != "unseen"} | ({"unseen": unseen} if unseen else {})
        path.write_text(json.dumps(told))
        ends[unseen] = gain(Benchmark.read(path), "concept", base_kept=False)[1].split("9 concepts ")[1]
    assert ends[None] == ends["concepts"] == "that neither training nor the search has seen."
    assert ends["questions"] == (
        "whose questions neither training nor the search has seen (their passages and concepts may be known)."
    )
