"""Let tests fork the Python processes that they start as `PYTHON`; loaded from the root `conftest.py`."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from oa_testing.fork_server import forks_python


def pytest_configure(config: pytest.Config) -> None:
    """Fork until the session ends."""
    stack = ExitStack()
    config.add_cleanup(stack.close)
    stack.enter_context(forks_python())
