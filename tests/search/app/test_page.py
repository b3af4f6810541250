"""The page as a browser gets it: search, clean-up, thumbs, answers; what is shown when something is wrong."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from evaluation.benchmark.endpoint import Endpoint
from search.app.ask import Desk
from search.app.corpus import Corpus
from search.app.log import Log
from search.app.server import make_app
from search.app.service import Service
from tests.kit.app import chat_server, quiet_desk
from tests.search.app.conftest import Client
from trainables.data.config import DataConfig
from trainables.prepare import prepare

QUESTION = "qui encaise les impots ?"
NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


def link(page: str, words: str) -> str:
    """The address of the link that says the words."""
    found = re.search(rf'href="([^"]*)"[^>]*>{re.escape(words)}</a>', page)
    assert found, words
    return unescape(found[1])


def test_both_models_answer_side_by_side_with_ranks_marked(client: Client, desk: Desk) -> None:
    known = next(q for q in desk.corpus.known if any(p.relevant for p in desk.ask(q).columns[1].passages))
    page = client().get("/", params={"q": known.upper() + " ?"}).text
    assert page.count("encoded in") == 2
    assert page.count('<p class="text">') == 20
    assert re.search(r"(up|down) \d+ \(rank \d+ with base\)|same rank as base|not among the first 100 of base", page)
    assert "This question is known" in page
    assert "answers the question" in page
    assert client().get("/", params={"q": "de quoi s'agit-il ?"}).text.count("answers the question") == 0


def test_a_question_of_the_training_part_says_that_it_was_learned(client: Client, run: Path) -> None:
    anchor = json.loads((run / "data" / "train.jsonl").read_text().splitlines()[0])["anchor"]
    assert "the best model has learned its answers" in client().get("/", params={"q": anchor}).text


def test_clean_up_is_one_click_away_in_both_directions(client: Client) -> None:
    browser = client()
    page = browser.get("/", params={"q": QUESTION}).text
    assert "<del>encaise</del> → <ins>encaisse</ins>" in page
    assert '<strong id="searched">qui encaisse les impôts ?</strong>' in page
    undone = browser.get(link(page, "Undo").replace("off=language", "off=spelling%3Aencaise")).text
    assert '<strong id="searched">qui encaise les impôts ?</strong>' in undone
    without = browser.get(link(page, "Search without clean-up")).text
    assert "The question is searched as it was typed" in without
    assert "<del>" not in without
    assert '<strong id="searched">' in browser.get(link(without, "Search with clean-up")).text


def test_every_undo_leads_to_the_step_undone_and_back(client: Client) -> None:
    browser = client()
    page = browser.get("/", params={"q": QUESTION}).text
    for address in re.findall(r'href="([^"]*)" aria-label="Undo: ', page):
        undone = browser.get(unescape(address)).text
        assert undone.count("(not done)") == 1
        (redo,) = re.findall(r'href="([^"]*)" aria-label="Do it: ', undone)
        assert browser.get(unescape(redo)).text.count("(not done)") == 0


def test_the_page_speaks_french_where_the_browser_does(client: Client) -> None:
    page = client().get("/", params={"q": QUESTION}, headers={"accept-language": "fr-FR,fr;q=0.9"}).text
    assert '<html lang="fr">' in page
    assert "Chercher sans nettoyage" in page
    assert '<html lang="en">' in client().get(link(page, "English")).text


@pytest.mark.parametrize(
    ("question", "says"),
    [("", "Type a question."), (" \n\t\x00\u200b", "Type a question."), ("é" * 2001, "at most 2,000 characters")],
)
def test_an_empty_or_endless_question_is_told_on_the_page(client: Client, question: str, says: str) -> None:
    answer = client().get("/", params={"q": question})
    assert answer.status_code == 400
    assert says in answer.text
    assert client().get("/api/search", params={"q": question}).status_code == 422
    assert client().get("/", params={"q": "é" * 2000}).status_code == 200


@pytest.fixture
def logged(client: Client) -> Iterator[TestClient]:
    """One browser whose app stays started."""
    with client(log=True) as browser:
        yield browser


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
        st.sampled_from(["🤷‍♀️" * 40, NASTY, "'; DROP TABLE question; --", "%s%n{0}", "../etc/passwd", "\u202egnirts"]),
        st.text("DGFiP('\"<>&;)[]\\{}% \n", max_size=2100),
    ),
    switch=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
def test_hostile_questions_give_a_page_and_no_failure(logged: TestClient, question: str, switch: str) -> None:
    params = {"q": question, "off": switch, "on": f"acronym:{switch}", "entry": switch, "lang": switch}
    answer = logged.get("/", params=params)
    assert answer.status_code in (200, 400), answer.text
    assert "<script" not in answer.text
    if len(switch) > 10:  # some of them: it is the same search
        assert logged.get("/api/search", params=params).status_code in (200, 422)


def test_bytes_that_are_no_text_give_no_failure(client: Client) -> None:
    for raw in ("%ED%A0%80", "%FF%FE", "%00", "a%0Ab", "%", "q=1&q=2"):
        assert client(log=True).get(f"/?q={raw}").status_code in (200, 400)


def test_html_in_the_corpus_and_in_the_question_is_shown_as_text(run: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "nasty.jsonl"
    corpus.write_text(json.dumps({"_id": "1", "title": NASTY, "text": f"</p>{NASTY}"}) + "\n", encoding="utf-8")
    browser = TestClient(make_app(Service(quiet_desk(run, corpus=corpus))), base_url="http://localhost")
    answer = browser.get("/", params={"q": NASTY})
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]


def test_nothing_is_kept_without_a_log(client: Client) -> None:
    page = client().get("/", params={"q": QUESTION}).text
    assert "thumb" not in page
    assert "/admin" not in page
    assert client().get("/admin").status_code == 404
    assert client().get("/admin/pairs.jsonl").status_code == 404
    assert client().post("/thumb?entry=1", data={"place": "0", "thumb": "up"}).status_code == 400


def judge(browser: TestClient, page: str, place: int, thumb: str) -> str:
    """Press a thumb of the page's nth passage; the page that follows."""
    action = unescape(re.findall(r'action="(/thumb[^"]*)"', page)[place])
    number = re.findall(r'name="place" value="(\d+)"', page)[place]
    return browser.post(action, data={"place": number, "thumb": thumb}).text


def test_judged_questions_become_pairs_that_a_search_reads(client: Client, run: Path, tmp_path: Path) -> None:
    browser = client(log=True)
    page = browser.get("/", params={"q": QUESTION}).text
    page = judge(browser, page, 0, "up")
    assert page.count('aria-pressed="true"') >= 1
    page = judge(browser, page, 1, "down")
    admin = browser.get("/admin").text
    assert admin.count('<th scope="row">') == 1, "a thumb asks no question anew"
    assert "1 up, 1 down" in admin
    assert "encaise → encaisse" in admin
    export = browser.get("/admin/pairs.jsonl")
    (row,) = [json.loads(line) for line in export.text.splitlines()]
    texts = [unescape(text) for text in re.findall(r'<p class="text">(.*?)</p>', page)]
    assert row["anchor"] == "qui encaisse les impôts ?"
    assert row["positive"] == texts[0]
    assert row["negative"] == [texts[1]]
    assert row["concept"]

    (tmp_path / "judged.jsonl").write_bytes(export.content)
    report = prepare(DataConfig(source="judged.jsonl"), tmp_path, 42, tmp_path / "data", earlier=run / "data")
    assert report.unusable is None
    parts = "".join((tmp_path / "data" / f"{part}.jsonl").read_text() for part in ("train", "dev", "test"))
    assert row["anchor"] in parts

    judge(browser, page, 0, "none")
    assert browser.get("/admin/pairs.jsonl").text == ""


def test_a_thumb_given_when_the_question_was_asked_before_can_be_taken_back(client: Client) -> None:
    browser = client(log=True)
    judge(browser, browser.get("/", params={"q": QUESTION}).text, 0, "up")
    again = browser.get("/", params={"q": QUESTION}).text
    assert "entry" in link(again, "Français")
    (button,) = set(re.findall(r'<button [^>]*aria-pressed="true"[^>]*>', again[: again.index('id="m2"')]))
    assert 'value="none"' in button
    assert 'aria-pressed="true"' not in judge(browser, again, 0, "none")
    assert browser.get("/admin/pairs.jsonl").text == ""
    judge(browser, again, 0, "down")
    assert browser.get("/admin").text.count("0 up, 1 down") == 1


def test_a_thumb_belongs_to_the_passage_and_not_to_its_place(client: Client, desk: Desk, tmp_path: Path) -> None:
    browser = client(log=True)
    page = browser.get("/", params={"q": QUESTION}).text
    judge(browser, page, 0, "up")
    text = unescape(re.findall(r'<p class="text">(.*?)</p>', page)[0])
    log = Log(tmp_path / "log.sqlite")
    assert log.thumbs("qui encaisse les impôts ?") == {text: True}
    other = replace(desk, corpus=replace(desk.corpus, texts=[f"passage {n}" for n in range(len(desk.corpus.texts))]))
    with TestClient(make_app(Service(other, log)), base_url="http://localhost") as elsewhere:
        assert 'aria-pressed="true"' not in elsewhere.get("/", params={"q": QUESTION}).text


def test_the_log_holds_no_addresses(client: Client, tmp_path: Path) -> None:
    browser = client(log=True)
    browser.get("/", params={"q": QUESTION}, headers={"user-agent": "agent-7", "x-forwarded-for": "203.0.113.7"})
    with sqlite3.connect(tmp_path / "log.sqlite") as base:
        dump = "\n".join(base.iterdump())
    assert QUESTION in dump
    assert not re.search(r"agent-7|203\.0\.113\.7|testclient|127\.0\.0\.1", dump)


@pytest.mark.parametrize("place", ["-1", "99999999", "x", "9" * 30, ""])
def test_a_thumb_for_nothing_is_refused(client: Client, place: str) -> None:
    browser = client(log=True)
    browser.get("/", params={"q": QUESTION})
    assert browser.post("/thumb?entry=1", data={"place": place, "thumb": "up"}).status_code == 400
    assert browser.post("/thumb?entry=2", data={"place": "0", "thumb": "up"}).status_code == 400
    assert browser.post("/thumb?entry=1", data={"place": "0", "thumb": "<b>"}).status_code == 400


def test_an_answer_cites_passages_of_the_best_model(client: Client, desk: Desk) -> None:
    with chat_server(lambda messages: f"{NASTY} La DGFiP [1]. Ailleurs [9].") as (url, calls):
        browser = client(log=True, llm=Endpoint.open(url))
        page = browser.get("/", params={"q": QUESTION}).text
        assert not calls, "an answer costs: it is made when it is asked for"
        answered = browser.get(link(page, "Answer from the passages")).text
        assert '<a href="#p2-1">[1]</a>' in browser.get(link(answered, "Français")).text
        assert '<a href="#p2-1">[1]</a>' in judge(browser, answered, 0, "up")
        assert len(calls) == 1, "the same answer is paid for once"
    assert '<a href="#p2-1">[1]</a>' in answered
    assert "Ailleurs [9]." in answered
    assert "<script" not in answered
    sent = calls[0][1]["messages"][1]["content"]
    best = desk.ask(QUESTION).columns[-1]
    assert f"[1] {best.passages[0].text}" in sent
    assert "qui encaisse les impôts" in sent


def test_an_endpoint_that_fails_leaves_the_passages(client: Client) -> None:
    with chat_server(lambda messages: "", status=500) as (url, _):
        page = client(llm=Endpoint.open(url)).get("/", params={"q": QUESTION, "answer": "1"})
    assert page.status_code == 200
    assert "answers 500" in page.text
    assert "answer=1" not in link(page.text, "Français"), "asked again only by its own link"
    assert "answer=1" in link(page.text, "Answer from the passages")
    assert page.text.count('<p class="text">') == 20
    gone = client(llm=Endpoint(url, "tiny")).get("/", params={"q": QUESTION, "answer": "1"})
    assert "The endpoint gave no answer" in gone.text
    assert "does not answer" in gone.text
    french = client(llm=Endpoint(url, "tiny")).get("/", params={"q": QUESTION, "answer": "1", "lang": "fr"}).text
    assert "n&#39;a pas donné de réponse" in french


def test_a_search_that_fails_says_so_in_the_page_s_language(desk: Desk) -> None:
    short = replace(desk.searchers[0], corpus_CD=desk.searchers[0].corpus_CD[:, :7])
    browser = TestClient(make_app(Service(replace(desk, searchers=(short,)))), base_url="http://localhost")
    page = browser.get("/", params={"q": QUESTION, "lang": "fr"})
    assert page.status_code == 500
    assert "La question n&#39;a pas pu être recherchée" in page.text
    assert "7 dimensions" in page.text or "passages 7" in page.text


def test_programs_get_the_same_as_json_with_its_description(client: Client) -> None:
    browser = client()
    reply = browser.get("/api/search", params={"q": QUESTION, "shown": 3}).json()
    assert [column["model"] for column in reply["columns"]] == ["base", "best"]
    assert [len(column["passages"]) for column in reply["columns"]] == [3, 3]
    assert reply["cleaned"]["searched"] == "qui encaisse les impôts ?"
    off = browser.get("/api/search", params={"q": QUESTION, "off": "all"}).json()
    assert off["cleaned"]["searched"] == QUESTION
    described = browser.get("/openapi.json").json()
    assert list(described["paths"]) == ["/api/search"]
    page = browser.get("/docs")
    assert "GET /api/search" in page.text
    assert not re.search(r'(src|href)="(https?:)?//', page.text), "nothing from another site"


def test_four_users_at_once_get_what_each_would_get_alone(client: Client) -> None:
    browser = client(log=True)
    questions = ["DGFiP", "la taxe foncière", QUESTION, "qui paie les communes ?"]

    def found(question: str) -> list[list[int]]:
        columns = browser.get("/api/search", params={"q": question}).json()["columns"]
        return [[passage["place"] for passage in column["passages"]] for column in columns]

    alone = [found(question) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found, questions * 5)) == alone * 5
    assert browser.get("/admin").text.count('<th scope="row">') == 24


def test_a_slow_model_does_not_hold_up_other_requests(desk: Desk) -> None:
    """More questions than there are threads wait for the model; the other pages answer meanwhile."""
    going, waiting = threading.Event(), threading.Event()
    slow = desk.searchers[0]

    class SlowModel:
        def encode_query(self, *arguments: object, **options: object) -> object:
            waiting.set()
            assert going.wait(60)
            return slow.model.encode_query(*arguments, **options)

    held = replace(desk, searchers=(replace(slow, model=SlowModel()),))
    with TestClient(make_app(Service(held)), base_url="http://localhost") as browser, ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(browser.get, "/", params={"q": f"question {number}"}) for number in range(60)]
        assert waiting.wait(60)
        assert browser.get("/").status_code == 200
        assert browser.get("/docs").status_code == 200
        assert not any(one.done() for one in asked)
        going.set()
        assert {one.result().status_code for one in asked} == {200}


def test_a_passage_that_stands_twice_is_one() -> None:
    corpus = Corpus("c")
    assert [corpus.add(text) for text in ("un  deux", "un deux ", "trois")] == [0, 0, 1]
