"""A client that follows runs without proving them, in a browser for example, loads nothing that only others need."""

import os
import subprocess
import sys

import pytest

from tests.house.files import REPO

HEAVY = ("asyncpg", "cryptography", "grpc")
"""What signs or verifies, and what only services and their callers use."""


def heavy_imports(module: str) -> set[str]:
    """What of `HEAVY` a new process has loaded once it has imported `module`."""
    program = f"import sys, {module}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    path = os.pathsep.join(str(REPO / root) for root in (".", "libs", "gen"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "oa_khala.client.session",
        "oa_runlog.authority.decide",
        "oa_runlog.events",
        "oa_runlog.proof.chain",
        "oa_runlog.proof.merkle",
        "oa_runlog.proof.receipt",
        "oa_runlog.proof.replay",
        "oa_runlog.state.reducer",
        "oa_runlog.state.form",
        "oa_runlog.wire",
        "openagents",
        "openagents.runtime.v1.event_pb2",
    ],
)
def test_decoding_and_following_load_no_cryptography_no_grpc_and_no_driver(module: str) -> None:
    assert heavy_imports(module) == set()


def test_what_is_loaded_is_seen() -> None:
    assert heavy_imports("oa_runlog.proof.verify") == {"cryptography"}
    assert heavy_imports("oa_platform.postgres.pool") >= {"asyncpg"}
    assert heavy_imports("oa_platform.rpc.client") >= {"grpc"}
