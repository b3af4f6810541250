"""`embtune try` as a command: it serves until it is stopped, and says in one line what is wrong with a call."""

from __future__ import annotations

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

from evaluation.embedding_cache import EmbeddingCache
from evaluation.errors import InputError
from search.app.ask import Desk
from search.app.corpus import read_corpus
from search.app.open import run_base
from search.paths import RunFolder
from tests.kit.app import quiet_desk
from tests.kit.command import EMBTUNE, embtune_here


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


def test_a_beir_folder_brings_its_known_questions(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "un"}\n{"_id": "2", "title": "T", "text": "deux"}\n')
    assert read_corpus(tmp_path).texts == ["un", "T deux"]
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "combien ?"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t2\t1\n")
    corpus = read_corpus(tmp_path)
    known = corpus.find("Combien")
    assert known is not None
    assert {corpus.texts[place] for place in known.relevant} == {"T deux"}


def test_a_run_s_corpus_is_all_of_its_passages(run: Path, desk: Desk) -> None:
    rows = [json.loads(line) for part in ("train", "dev", "test") for line in (run / "data" / f"{part}.jsonl").open()]
    assert set(desk.corpus.texts) == {row["positive"].strip() for row in rows}
    assert {known.part for known in desk.corpus.known.values()} == {"train", "dev", "test"}


def test_more_models_stand_beside_base_and_best(run: Path) -> None:
    desk = quiet_desk(run, models=[str(run)])
    columns = desk.ask("la taxe foncière").columns
    assert [column.model for column in columns] == ["base", "best", str(run)]
    assert [p.place for p in columns[1].passages] == [p.place for p in columns[2].passages]
