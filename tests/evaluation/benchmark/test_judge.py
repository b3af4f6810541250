"""RAGAS's context precision and recall, judged over the OpenAI protocol by a local server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evaluation.benchmark.endpoint import KEY, Endpoint
from evaluation.benchmark.judge import Judge, context_precision, json_object, reference
from evaluation.benchmark.run import run_benchmark
from evaluation.errors import InputError
from evaluation.retrieval import Scores, evaluate
from evaluation.task import RetrievalTask
from tests.conftest import TEXTS, TinyBase
from tests.kit.app import chat_server
from tests.kit.command import embtune_here
from trainables.export.merge import base_model


@pytest.fixture(scope="module")
def task() -> RetrievalTask:
    """Six questions, each with one passage that answers it, whose statements are its two halves."""
    return RetrievalTask.from_pairs("t", [text.split(",")[0] for text in TEXTS[:6]], TEXTS[:6], list(range(6)))


@pytest.fixture(scope="module")
def scores(task: RetrievalTask, tiny_base: TinyBase) -> Scores:
    return evaluate(base_model(str(tiny_base("bert"))), task)


def judge_by_words(messages: list[dict[str, str]]) -> str:
    """A judge that finds a context useful where it is the answer, and a statement attributed where it stands there."""
    text = messages[1]["content"]
    answer = re.search(r"answer: (.*)", text)
    assert answer
    context = text.partition("context: ")[2]
    if '"verdict"' in messages[0]["content"]:
        return f"Verdict: ```json\n{json.dumps({'reason': '', 'verdict': int(answer[1] == context)})}\n```"
    half = len(answer[1]) // 2
    statements = [answer[1][:half], answer[1][half:], "La lune est en fromage."]
    found = [{"statement": s, "reason": "", "attributed": int(s in context)} for s in statements]
    return json.dumps({"classifications": found})


def test_judged_contexts_are_the_published_definitions(task: RetrievalTask, scores: Scores) -> None:
    """With a judge that knows the one answer: precision is 1 / its rank, recall 2 of 3 statements where it is found."""
    ranks = [
        list(scores.top_ids_QK[row][:5]).index(next(iter(task.qrels[query]))) + 1
        if next(iter(task.qrels[query])) in scores.top_ids_QK[row][:5]
        else None
        for row, query in enumerate(scores.query_ids)
    ]
    with chat_server(judge_by_words) as (url, calls):
        judge = Judge(Endpoint.open(url))
        found = judge.judged(task, scores)
        assert len(calls) == 6 * (5 + 1)
        assert judge.judged(task, scores) == found
        assert len(calls) == 6 * (5 + 1), "what was judged once is not asked again"
    assert found["precision@5"] == pytest.approx(sum(1 / rank if rank else 0 for rank in ranks) / 6)
    assert found["recall@5"] == pytest.approx(sum(2 / 3 for rank in ranks if rank) / 6)
    assert found["questions"] == 6
    assert calls[0][1]["temperature"] == 0


def test_context_precision_is_ragas_average() -> None:
    assert context_precision([True, True, False, False, False]) == 1
    assert context_precision([False, True, False, True]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert context_precision([]) == 0


def test_the_reference_is_the_passage_of_the_highest_grade() -> None:
    task = RetrievalTask("t", {"a": "A", "b": "B", "c": "C"}, {"q": "?"}, {"q": {"a": 1, "b": 2, "c": 2}})
    assert reference(task, "q") == "B"


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("yes", None),
        ("{", None),
        ("[1]", None),
        ('{"verdict": "maybe"}', {"verdict": "maybe"}),
        ('so {"classifications": []}.', {"classifications": []}),
    ],
)
def test_replies_without_a_verdict_are_left_out_not_guessed(
    reply: str, read: dict[str, object] | None, task: RetrievalTask, scores: Scores
) -> None:
    with chat_server(lambda messages: reply) as (url, _), pytest.raises(InputError, match="none of its replies"):
        Judge(Endpoint.open(url)).judged(task, scores)
    assert json_object(reply) == read


def test_one_unreadable_reply_leaves_out_its_question(task: RetrievalTask, tiny_base: TinyBase, tmp_path: Path) -> None:
    task.save_beir(tmp_path / "t")
    first = next(iter(task.queries.values()))

    def reply(messages: list[dict[str, str]]) -> str:
        return "?" if f"question: {first}\n" in messages[1]["content"] else judge_by_words(messages)

    with chat_server(reply) as (url, _):
        judge = Judge(Endpoint.open(url))
        table = run_benchmark([tmp_path / "t"], [str(tiny_base("bert"))], judge=judge, load=base_model)
    details = table.rows[0].details
    assert details is not None
    assert details["judged"]["questions"] == 5
    assert any("left out 1 query" in note and "verdict" in note for note in table.notes)
    assert "judged: precision@5" in table.markdown()


def test_an_endpoint_that_is_lost_midway_leaves_the_table(
    task: RetrievalTask, tiny_base: TinyBase, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        task.save_beir(tmp_path / name)
    asked: list[None] = []

    def reply(messages: list[dict[str, str]]) -> str:
        asked.append(None)
        if len(asked) > 6 * 6:  # what the first task needs
            raise ConnectionAbortedError
        return judge_by_words(messages)

    model = str(tiny_base("bert"))
    reworded = tmp_path / "second" / "queries.jsonl"  # else what was judged of the first task would be known
    reworded.write_text(reworded.read_text().replace('"text": "', '"text": "donc '))
    with chat_server(reply) as (url, _):
        judge = Judge(Endpoint.open(url))
        table = run_benchmark([tmp_path / "first", tmp_path / "second"], [model], judge=judge, load=base_model)
    first, second = table.rows
    assert first.details is not None
    assert first.details["judged"]["questions"] == 6
    assert second.details is None
    assert 0 < second.score <= 1
    assert any(f"not judged from task second/test, model {model} on: endpoint {url}" in note for note in table.notes)
    assert "judged: precision@5" in table.markdown()


def test_the_command_prints_what_was_judged(task: RetrievalTask, tiny_base: TinyBase, tmp_path: Path) -> None:
    task.save_beir(tmp_path / "t")
    with chat_server(judge_by_words, models=("small", "large")) as (url, _):
        call = ["benchmark", "--task", "t", "--model", str(tiny_base("bert")), "--judge", url]
        several = embtune_here(*call, cwd=tmp_path)
        done = embtune_here(*call, "--judge-model", "small", "--json", cwd=tmp_path)
    assert several.returncode == 2
    assert "small, large" in several.stderr
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)["rows"][0]["details"]["judged"]
    assert 0 <= judged["precision@5"] <= 1
    gone = embtune_here(*call, "--judge-model", "small", cwd=tmp_path)
    assert gone.returncode == 2
    assert "does not answer" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1


def test_the_key_goes_to_the_endpoint_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    with chat_server(lambda messages: "ok") as (url, calls):
        endpoint = Endpoint.open(url)
        assert endpoint.ask([{"role": "user", "content": "?"}]) == "ok"
    assert calls[0][0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(endpoint)
    with pytest.raises(InputError) as error:
        endpoint.ask([{"role": "user", "content": "?"}])
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("url", ["localhost:1/v1", "file:///etc/passwd", "http://127.0.0.1:1/v1", "http://[::", ""])
@pytest.mark.parametrize("model", [None, "tiny"])
def test_a_url_without_an_endpoint_is_one_line(url: str, model: str | None) -> None:
    with pytest.raises(InputError, match=r"expected one such as|does not answer"):
        Endpoint.open(url, model)


def test_a_named_model_need_not_be_listed() -> None:
    with chat_server(lambda messages: "ok", models=()) as (url, _):
        assert Endpoint.open(url, "alias").ask([{"role": "user", "content": "?"}]) == "ok"
