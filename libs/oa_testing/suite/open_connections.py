"""Fail tests that leave a connection open when their loop closes; loaded from the root `conftest.py`.

asyncio doesn't close a connection with its loop. The garbage collector reports it some time later, in whichever test
is running then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator

import pytest

_left_open: list[str] = []


def left_open(loop: asyncio.SelectorEventLoop) -> Iterator[str]:
    """The connections of a loop that have not ended."""
    # There is no public list. A connection that is closing ends only in a later turn of the loop.
    for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
        if transport._sock is not None:
            protocol = transport.get_protocol()
            yield f"{transport!r} {transport.get_extra_info('socket')!r} of {type(protocol).__qualname__}"


_close = asyncio.SelectorEventLoop.close


def _close_and_tell(loop: asyncio.SelectorEventLoop) -> None:
    if not loop.is_closed():
        _left_open.extend(left_open(loop))
    _close(loop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose connections are open when it is over."""
    report = yield
    if report.when == "teardown":
        if report.passed and _left_open:
            report.outcome, report.longrepr = "failed", "left open when the loop closed:\n" + "\n".join(_left_open)
        _left_open.clear()
    return report


def pytest_configure() -> None:
    """Look for open connections whenever a loop closes."""
    asyncio.SelectorEventLoop.close = _close_and_tell  # type: ignore[method-assign, assignment]
