"""Connect's own conformance suite against the edge, where Go is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.go_modules import BUILD_TIMEOUT_S, SchemasMissing, fetched

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "run_conformance.sh"


def _suite() -> str:
    """The suite's module and version, as the script has them."""
    (line,) = [line for line in SCRIPT.read_text("utf-8").splitlines() if line.startswith("suite=")]
    named = dict(word.split("=", 1) for word in line.split())
    return f"{named['suite']}@{named['version']}"


@pytest.mark.timeout(BUILD_TIMEOUT_S)
def test_the_edge_does_what_connects_own_suite_asks_for() -> None:
    try:
        fetched(_suite())
    except SchemasMissing as missing:
        pytest.skip(str(missing))
    ran = _run()
    if ran.returncode:  # cases of the suite have time limits of their own, which a busy machine may miss
        ran = _run()
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]


def _run() -> subprocess.CompletedProcess[str]:
    python = os.path.relpath(sys.executable, ROOT)
    return subprocess.run([SCRIPT], check=False, env={**os.environ, "PY": python}, capture_output=True, text=True)
