"""A base that brings code of its own, trusted by the spec: fetched with it, planned, trained and exported."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

from evaluation.errors import InputError
from tests.conftest import TEXTS
from tests.kit.reload import reloading_here
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.export.average import merge_models
from trainables.export.backends import load_backend
from trainables.export.export import export_model
from trainables.export.mix import Mix
from trainables.model.build import build_model
from trainables.model.stand_ins import make_stand_in, train_tokenizer
from trainables.plan.rows import plan_rows, plan_table
from trainables.train import train

COMMIT = "0" * 39 + "1"
CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class HouseConfig(PretrainedConfig):
    model_type = "house-encoder"

    def __init__(self, vocab_size=100, hidden_size=16, **options):
        super().__init__(**options)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class HouseAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden, mask):
        scores = (self.q_proj(hidden) @ hidden.transpose(1, 2)).masked_fill(mask[:, None] == 0, -1e4)
        return hidden + scores.softmax(-1) @ self.v_proj(hidden)


class HouseLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = HouseAttention(width)

    def forward(self, hidden, mask):
        return self.attention(hidden, mask)


class HouseModel(PreTrainedModel):
    config_class = HouseConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([HouseLayer(config.hidden_size)])
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, **options):
        return BaseModelOutput(last_hidden_state=self.layers[0](self.words(input_ids), attention_mask))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain encoder whose architecture transformers does not have, and which has no SDPA path."""
    folder = tmp_path_factory.mktemp("hub") / "house-encoder"
    folder.mkdir()
    (folder / "house.py").write_text(CODE)
    tokenizer = train_tokenizer(TEXTS)
    tokenizer.save_pretrained(folder)
    figures = {
        "model_type": "house-encoder",
        "auto_map": {"AutoConfig": "house.HouseConfig", "AutoModel": "house.HouseModel"},
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(figures))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
    return folder


def test_a_trusted_base_is_trained_within_a_memory_and_exported(base: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    data = trial_data(tmp_path / "source")
    config = TrialConfig(
        base=str(base), trust_remote_code=True, max_length=24, lr=1e-2, batch_size=16, rungs=1, precision="fp32"
    )
    best = train(config, data, lambda rung: None, folder=tmp_path, device="cpu", memory=2**30)
    texts = list(data.dev.queries.values()), list(data.dev.corpus.values())
    mix = Mix.of(config, Path(best.folder))
    assert export_model(mix, tmp_path / "best", *texts, {}, "# card\n", device="cpu").cosine > 0.9999
    assert list((tmp_path / "best").rglob("house.py"))
    assert load_backend(tmp_path / "best", "safetensors", trust_remote_code=True).encode_query(["Le SG"]).shape == (
        1,
        16,
    )
    with reloading_here():
        found = merge_models([tmp_path / "best"] * 2, None, tmp_path / "mean", "# card\n", trust_remote_code=True)
    assert found.cosine > 0.9999


def test_its_plan_counts_the_modules_of_its_own_classes_and_says_what_is_not_known(base: Path) -> None:
    config = TrialConfig(base=str(base), trust_remote_code=True, targets="qv", r=4)
    (row,) = plan_rows([config], train_pairs=100, device="cuda", device_memory=2**30)
    model = build_model(config, "cpu")
    assert row.total == sum(p.numel() for p in model.parameters())
    assert row.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 4 * (16 + 16)
    assert (row.memory, row.fits, row.steps) == (None, None, 4)
    assert any("its own code does not say its hidden_size" in note for note in row.notes)
    assert plan_table([row]).row_count == 1


def test_its_stand_in_is_made_by_its_own_classes(base: Path, tmp_path: Path) -> None:
    config = TrialConfig(base=str(base), trust_remote_code=True, max_length=24)
    path = make_stand_in(config, TEXTS, tmp_path, width=8)
    model = build_model(config.model_copy(update={"base": str(path), "precision": "fp32"}), "cpu")
    assert type(model.transformers_model).__name__ == "HouseModel"
    assert model.encode_query(["Le SG"]).shape == (1, 8)


class Hub(http.server.BaseHTTPRequestHandler):
    """The little of the hub's interface that a snapshot needs."""

    folder: Path
    gated = False

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        names = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in names]
            tree = [{"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": n} for n in names]
            found = tree if "/tree/" in path else {"id": "house/encoder", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(found).encode(), "application/json", body)
        elif self.gated:
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif (name := path.rsplit("/", 1)[-1]) in names and "/resolve/" in path:
            self._send((self.folder / name).read_bytes(), "application/octet-stream", body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, content: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(base: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    here = type("Here", (Hub,), {"folder": base, "gated": getattr(request, "param", False)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), here)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_code_of_a_hub_base_is_fetched_where_it_is_trusted_and_not_elsewhere(hub: str, tmp_path: Path) -> None:
    code = (
        "from trainables.bases import hub\n"
        "plain, commit = hub.fetch('house/encoder')\n"
        f"assert commit == '{COMMIT}' and not list(plain.glob('*.py')), list(plain.iterdir())\n"
        "trusted, _ = hub.fetch('house/encoder', code=True)\n"
        "assert (trusted / 'house.py').is_file()\n"
    )
    asked(code, hub, tmp_path)


@pytest.mark.parametrize("hub", [True], indirect=True)
def test_a_gated_base_without_a_token_says_where_to_get_one(hub: str, tmp_path: Path) -> None:
    code = (
        "from trainables.bases import hub\n"
        "try:\n"
        "    hub.fetch('house/encoder')\n"
        "except Exception as error:\n"
        "    told = str(error)\n"
        f"assert told.startswith('base: house/encoder is gated: accept its licence at {hub}/house/encoder'), told\n"
        "assert 'hf auth login' in told and 'HF_TOKEN' in told and '\\n' not in told\n"
    )
    asked(code, hub, tmp_path)


def asked(code: str, hub: str, home: Path) -> None:
    """Run the code in a process whose hub this is, without a token."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_untrusted_code_is_not_run(base: Path) -> None:
    with pytest.raises(InputError, match=r"runs code of its own \(house-encoder\); expected trust_remote_code: true"):
        build_model(TrialConfig(base=str(base), precision="fp32"), "cpu")
