"""Every test in this folder is a soak test."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark it; pytest calls this for the tests of this folder alone."""
    item.add_marker(pytest.mark.soak)
