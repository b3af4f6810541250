"""`embtune try` as a command: it serves until it is stopped, and says in one line what is wrong with a call."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import httpx2
import numpy as np
import pytest
from rich.console import Console

from evaluation.embedding_cache import EmbeddingCache
from evaluation.errors import InputError
from search.app.ask import Desk
from search.app.corpus import Corpus, names_concepts, read_corpus, run_corpus
from search.app.open import run_base
from search.notebook import OpenRun
from search.paths import RunFolder
from search.screen.summary import print_how_to_load
from tests.kit.app import quiet_desk
from tests.kit.command import EMBTUNE, embtune_here
from trainables.data.config import DataConfig
from trainables.prepare import prepare


def test_the_command_serves_and_asks_for_a_token_with_a_host(run: Path, tmp_path: Path) -> None:
    command = [*EMBTUNE, "try", str(run), "--host", "127.0.0.1", "--port", "0", "--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "token:" in line), "")
        found = re.match(r"(http://127\.0\.0\.1:\d+)  token: (\S{20,})", line)
        assert found, process.stderr and process.stderr.read()
        url, token = found.groups()
        try:
            assert httpx2.get(f"{url}/api/search?q=DGFiP", timeout=60).status_code == 401
            bearer = {"Authorization": f"Bearer {token}"}
            reply = httpx2.get(f"{url}/api/search?q=DGFiP", headers=bearer, timeout=60)
            assert len(reply.json()["columns"]) == 2
            assert "server" not in reply.headers
        finally:
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert "DGFiP" not in output + errors, "what was asked is printed nowhere"


def test_a_port_in_use_is_one_line_before_anything_is_loaded(run: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = embtune_here("try", run, "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(rf"embtune: cannot listen on 127\.0\.0\.1:{port} .*expected a free --port.*\n", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "203.0.113.1"], "own --host"),
        (["--llm", "http://127.0.0.1:1/v1"], "does not answer"),
        (["--log", "text.txt"], "expected a new file or a log"),
        (["--log", "none/log"], "expected a new file or a log"),
        (["--corpus", "none.jsonl"], "expected a BEIR folder"),
        (["--corpus", "empty.jsonl"], "no passages"),
        (["--corpus", "wrong.jsonl"], "wrong.jsonl:1: key 'text'"),
        (["--model", "a", "--model", "b", "--model", "c"], "at most 2"),
        (["--model", "./none"], "no such folder"),
        (["--language", "xx"], "ISO 639"),
        (["--translate", "./none"], "expected a Marian model"),
    ],
)
def test_a_wrong_call_is_one_line(run: Path, tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "text.txt").write_text("no database, and long enough to be read as one\n" * 9)
    (tmp_path / "empty.jsonl").write_text('{"text": "  "}\n')
    (tmp_path / "wrong.jsonl").write_text('{"txt": "a"}\n')
    done = embtune_here("try", run, "--port", "0", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_that_has_not_ended_is_refused(run: Path, tmp_path: Path) -> None:
    done = embtune_here("try", tmp_path, "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected the folder of a search that has ended" in done.stderr


def test_embeddings_of_another_dimension_in_the_cache_are_refused(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    folder = RunFolder(moved)
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": "un"}\n{"text": "deux"}\n')
    base = run_base(folder)
    path = EmbeddingCache.of(base, folder.embeddings).path(base, ["un", "deux"], "document")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((2, 7), dtype=np.float32))
    with pytest.raises(InputError, match=r"\(2, 7\), expected float32 \(2, 32\)"):
        quiet_desk(moved, corpus=corpus)


def write_beir(folder: Path) -> Path:
    """Twelve passages, one of them with a title; ten questions of train, dev and test. The last two answer nothing."""
    lines = [{"_id": f"p{n}", "title": "T" if n == 1 else "", "text": f"passage numéro {n}"} for n in range(12)]
    asked = [{"_id": f"q{n}", "text": f"combien font {n} ?"} for n in range(10)]
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", lines), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, numbers in (("train", range(4)), ("dev", range(4, 7)), ("test", range(7, 10))):
        judged = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        # q0 and q1 share p0 and are one group; p1 answers q1 alone. p4 answers a question of train too.
        extra = "q1\tp0\t1\nq2\tp4\t1\n" if split == "train" else ""
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}{extra}")
    return folder


def answers(corpus: Corpus, question: str) -> set[str]:
    """The passages that answer a known question."""
    known = corpus.find(question)
    assert known is not None
    return {corpus.texts[place] for place in known.relevant}


def test_a_beir_folder_brings_its_known_questions_which_the_run_has_not_learned(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "corpus.jsonl").write_text(
        '{"_id": "1", "text": "un"}\n{"_id": "2", "title": "T", "text": "b"}\n'
    )
    assert read_corpus(tmp_path / "b").texts == ["un", "T b"]
    corpus = read_corpus(write_beir(tmp_path / "whole"))
    assert len(corpus.texts) == 12
    assert answers(corpus, "Combien font 1") == {"passage numéro 0", "T passage numéro 1"}
    assert {known.part for known in corpus.known.values()} == {""}


def test_a_concept_that_the_data_s_preparation_made_up_is_none(tmp_path: Path) -> None:
    rows = [{"text": "a", "concept": "group-" + "0" * 16}, {"text": "b", "concept": "c", "cluster_id": "d"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_corpus(tmp_path / "c.jsonl").concepts == [None, "c"]


@pytest.mark.parametrize("beir", [True, False])
def test_half_a_character_in_a_corpus_is_named_with_its_line(tmp_path: Path, beir: bool) -> None:
    path = write_beir(tmp_path / "b") / "corpus.jsonl" if beir else tmp_path / "c.jsonl"
    path.write_text('{"_id": "1", "text": "é"}\n{"_id": "2", "title": "\\ud800", "text": "b"}\n')
    with pytest.raises(InputError, match=r"\.jsonl:2: .*surrogate"):
        read_corpus(path.parent if beir else path)


def test_a_run_s_corpus_is_all_of_its_passages(run: Path, desk: Desk, tmp_path: Path) -> None:
    rows = [json.loads(line) for part in ("train", "dev", "test") for line in (run / "data" / f"{part}.jsonl").open()]
    assert set(desk.corpus.texts) == {row["positive"].strip() for row in rows}
    assert {known.part for known in desk.corpus.known.values()} == {"train", "dev", "test"}
    assert names_concepts(RunFolder(run))
    # Of a BEIR folder those that answer nothing are searched too, and what was judged is right: no more, no less.
    write_beir(tmp_path / "b")
    judged = RunFolder(tmp_path / "run")
    prepare(DataConfig(source="b"), tmp_path, 42, judged.data)
    corpus = run_corpus(judged)
    assert set(corpus.texts) == set(read_corpus(tmp_path / "b").texts)
    assert len(corpus.texts) == 12
    assert answers(corpus, "combien font 0 ?") == {"passage numéro 0"}
    assert answers(corpus, "combien font 1 ?") == {"passage numéro 0", "T passage numéro 1"}
    assert answers(corpus, "combien font 2 ?") == {"passage numéro 2", "passage numéro 4"}
    assert set(corpus.concepts) == {None}


def test_judged_rows_of_a_run_without_concepts_go_where_its_passages_are(tmp_path: Path) -> None:
    rows = [{"anchor": f"combien font {n} ?", "positive": f"la somme {n}"} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunFolder(tmp_path / "run")
    prepare(DataConfig(source="pairs.jsonl"), tmp_path, 42, run.data)
    corpus = run_corpus(run)
    assert len(corpus.texts) == 20
    assert answers(corpus, rows[3]["anchor"]) == {rows[3]["positive"]}
    assert not names_concepts(run)
    assert set(corpus.concepts) == {None}, "a made-up one would count as a concept that the source names"
    test = json.loads((run.data / "test.jsonl").read_text().splitlines()[0])
    judged = {"anchor": "la même, dite autrement", "positive": test["positive"], "negative": []}
    (tmp_path / "judged.jsonl").write_text(json.dumps(judged) + "\n")
    prepare(DataConfig(source="judged.jsonl"), tmp_path, 42, tmp_path / "next", earlier=run.data)
    rows = [json.loads(line) for line in (tmp_path / "next" / "test.jsonl").read_text().splitlines()]
    assert {row["anchor"] for row in rows if row["concept"] == test["concept"]} == {judged["anchor"], test["anchor"]}


def test_more_models_stand_beside_base_and_best(run: Path) -> None:
    desk = quiet_desk(run, models=[str(run)])
    columns = desk.ask("la taxe foncière").columns
    assert [column.model for column in columns] == ["base", "best", str(run)]
    assert [p.place for p in columns[1].passages] == [p.place for p in columns[2].passages]


CODE = """
from transformers import BertConfig, BertModel


class HouseConfig(BertConfig):
    model_type = "house"


class HouseModel(BertModel):
    config_class = HouseConfig
"""


def test_a_best_model_with_code_of_its_own_is_loaded_as_its_search_trusted_it(
    run: Path, desk: Desk, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    best = RunFolder(tmp_path / "run").best
    (best / "house.py").write_text(CODE)
    config = json.loads((best / "config.json").read_text())
    own = {"AutoConfig": "house.HouseConfig", "AutoModel": "house.HouseModel"}
    (best / "config.json").write_text(json.dumps({**config, "model_type": "house", "auto_map": own}))
    with pytest.raises(InputError, match="cannot be loaded"):
        quiet_desk(tmp_path / "run")
    (best / "embtune.json").write_text(json.dumps({"config": {"trust_remote_code": True}}))
    found, expected = (one.ask("la taxe foncière").columns[1] for one in (quiet_desk(tmp_path / "run"), desk))
    assert found.passages == expected.passages
    assert type(OpenRun(tmp_path / "run").model()[0].auto_model).__name__ == "HouseModel"
    printed = io.StringIO()
    print_how_to_load(RunFolder(tmp_path / "run"), Console(file=printed, width=400))
    assert 'best", trust_remote_code=True)' in printed.getvalue()
