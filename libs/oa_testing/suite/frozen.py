"""Keep the garbage collector away from what the collection of tests makes; loaded from the root `conftest.py`.

Ten thousand tests and all modules that they import are a million objects that stay. A full collection looks at each of
them, which takes half a second.
"""

from __future__ import annotations

import gc


def pytest_configure() -> None:
    """Collect no garbage while the tests are collected."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out for good all that exists now, and collect garbage from now on."""
    gc.freeze()
    gc.enable()
