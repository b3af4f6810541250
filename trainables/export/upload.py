"""A complete exported folder to a repository of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi

from evaluation.errors import InputError
from trainables.export.manifest import verify

TOKEN = "HF_TOKEN"


def token_for(repo: str) -> str:
    """The hub's token, from the environment variable HF_TOKEN.

    Raises:
        InputError: there is none.
    """
    token = os.environ.get(TOKEN)
    if not token:
        raise InputError(f"--push-to-hub {repo}: no token, expected one in the environment variable {TOKEN}")
    return token


def push_to_hub(folder: Path, repo: str) -> str:
    """Upload a folder, to a private repository where there is none yet; returns the commit's address.

    The token is `token_for`'s, the hub's address from HF_ENDPOINT where it is set.

    Raises:
        InputError: an incomplete folder, no token, a name that is none, or what the hub answered.
    """
    verify(folder)
    token = token_for(repo)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        hub.create_repo(repo, private=True, exist_ok=True)
        return str(hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Exported by embtune").commit_url)
    except Exception as error:  # the hub's own, the network's, those of whichever HTTP client it uses
        lines = str(error).replace(token, "***").splitlines() or [type(error).__name__]
        raise InputError(f"--push-to-hub {repo}: {lines[0]}") from None
