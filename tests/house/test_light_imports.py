"""What a process loads, and when: a client loads nothing heavy, a program silences gRPC's core before it loads it."""

import os
import subprocess
import sys

import pytest

from tests.house.files import REPO

HEAVY = ("asyncpg", "cryptography", "grpc")
"""What signs or verifies, and what only services and their callers use."""


def heavy_imports(module: str) -> set[str]:
    """What of `HEAVY` a new process has loaded once it has imported `module`."""
    return set(_said(f"import sys, {module}\nprint(*(name for name in {HEAVY} if name in sys.modules))"))


def verbosity_of_grpc(program: str) -> str:
    """What gRPC's core finds in GRPC_VERBOSITY, or would find, if nobody sets it and `program` is imported."""
    (verbosity,) = _said(f"""
import os, sys

class AtGrpc:
    def find_spec(self, name, *_):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY", "nothing"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, AtGrpc())
import {program}
import grpc
""")
    return verbosity


def _said(code: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    env["PYTHONPATH"] = os.pathsep.join(str(REPO / root) for root in (".", "libs", "gen"))
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()


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


@pytest.mark.parametrize(
    "program",
    ["apps.cli", "apps.worker", "services.control", "services.khala_gateway", "services.projector", "services.runtime"],
)
def test_programs_silence_the_core_of_grpc_before_they_load_it(program: str) -> None:
    """Its lines would stand among the records of a log, or in the answer of `oa`."""
    assert verbosity_of_grpc(f"{program}.__main__") == "NONE"


def test_tests_silence_the_core_of_grpc_before_they_load_it() -> None:
    """A test that captures what a program says would get its lines, from threads that other tests have started."""
    assert verbosity_of_grpc("conftest") == "NONE"
    assert verbosity_of_grpc("oa_platform.rpc.client") == "nothing"
