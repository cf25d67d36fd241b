"""Let tests fork the Python processes that they start as `PYTHON`; loaded from the root `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from oa_testing.fork_server import forks_python, starts_python


def pytest_configure(config: pytest.Config) -> None:
    """Fork until the session ends."""
    stack = ExitStack()
    config.add_cleanup(stack.close)
    stack.enter_context(forks_python())


@pytest.fixture(scope="module")
def real_processes() -> Iterator[None]:
    """Start all processes anew, those of the stack too."""
    with starts_python():
        yield
