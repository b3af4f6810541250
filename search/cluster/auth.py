"""The token of a cluster, found before Ray is imported: Ray reads RAY_AUTH_MODE once."""

from __future__ import annotations

import os
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def show_token() -> None:
    """Have Ray show the token that is here, unless the environment says itself how it is to be."""
    path = Path(os.environ.get(TOKEN_PATH) or "~/.ray/auth_token").expanduser()
    if os.environ.get(TOKEN) or path.is_file():
        os.environ.setdefault(MODE, "token")
