"""What a worker of xdist gets as a whole, and what comes first.

Modules with long tests come first, so that no worker is left with one of them at the end. A module is one worker's, and
so are all of a room whose modules work on the same thing, which each worker would have to make for itself.
"""

from __future__ import annotations

from typing import Any

import pytest

TOGETHER = ("tests/house/",)
"""Rooms that are one worker's. The house's rules look at the syntax trees of all files."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move a module to the front as a whole when one of its tests is marked `long`; otherwise the order stays."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


def whole_of(nodeid: str) -> str:
    """The module of a test, or its room if that is one worker's."""
    module = nodeid.partition("::")[0]
    return next((room for room in TOGETHER if module.startswith(room)), module)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep wholes together where modules are kept together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = whole_of
    return scheduler
