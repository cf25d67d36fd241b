"""Fail modules whose tests leave the process changed for those behind them; loaded from the root `conftest.py`.

One process runs many modules. What one of them changes and does not put back is there for all behind it, and which
these are depends on the number of workers.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
import structlog

from oa_platform.process import interrupts

State = Mapping[str, object]
_BEGAN = pytest.StashKey[State]()
_OURS = {signal.SIGALRM}
"""pytest-timeout's: each test has another handler."""


def state() -> State:
    """What all tests of the process share, by name."""
    root = logging.getLogger()
    return {
        "the working directory": Path.cwd(),
        "the environment": {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "the cores": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "the limit of descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
        "the handlers of signals": {one: _handler(one) for one in signal.valid_signals() - _OURS},
        "the handlers and the level of the root logger": (list(root.handlers), root.level),
        "structlog": structlog.get_config(),
        "the garbage collection": (gc.isenabled(), gc.get_threshold()),
    }


def _handler(number: int) -> object:
    """The handler of a signal. `oa` takes SIGINT over while it loads, and gives it back for its work: both are one."""
    handler = signal.getsignal(number)
    return signal.default_int_handler if handler is interrupts.end else handler


def changed(before: State, after: State) -> list[str]:
    """The names of what is not as it was."""
    return [name for name, was in before.items() if after[name] != was]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Note how it is before the first test of a module."""
    if _BEGAN not in item.config.stash:
        item.config.stash[_BEGAN] = state()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Compare after the last one, when the fixtures of the module are over."""
    yield
    if nextitem is None or nextitem.path != item.path:
        left = changed(item.config.stash[_BEGAN], state())
        del item.config.stash[_BEGAN]
        if left:
            pytest.fail(f"a test of {item.path.name} has changed {', '.join(left)} and left it so", pytrace=False)
