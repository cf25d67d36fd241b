"""Modules with long tests come first, so that no worker is left with one of them at the end of a run of pytest."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move a module to the front as a whole when one of its tests is marked `long`; otherwise the order stays."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)
