"""Exports of this room are read back in the tests' own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.reload import reloading_here


@pytest.fixture(autouse=True)
def in_this_process() -> Iterator[None]:
    with reloading_here():
        yield
