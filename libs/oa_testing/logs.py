"""What the code under test logged.

A process that runs many tests logs for all of them: an object of an earlier test that is collected late reports then
that its event loop is closed. A test that looks at every record fails by what another one left behind.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def logged(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    """The records of `logger` and of the loggers below it, in order."""
    return [record for record in caplog.records if f"{record.name}.".startswith(f"{logger}.")]


@contextmanager
def nothing_collected() -> Iterator[None]:
    """For a test that looks at every record: what earlier tests left behind reports before the block or after it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
