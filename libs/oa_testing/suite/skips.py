"""Tests that are skipped where something is missing, and the release gate, for which nothing may be missing.

A test that needs a tool that not everybody has is skipped without it, and says so. With NO_SKIPS=1 in the environment
it fails instead, because a release is made where all tools are. Loaded from the root `conftest.py`.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

NO_SKIPS = "NO_SKIPS"
_NEEDS_ROOT = "needs root"
_NEEDS_A_USER = "needs a user who is not root"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason=_NEEDS_ROOT)
as_user = pytest.mark.skipif(os.geteuid() == 0, reason=_NEEDS_A_USER)
"""No user is both, so the gate leaves these as they are, and has to be passed by one user of each kind."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure, at the gate."""
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS) == "1" and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value) if call.excinfo else ""
        if reason not in {_NEEDS_ROOT, _NEEDS_A_USER}:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and {NO_SKIPS} is set: {reason}"
    return report
