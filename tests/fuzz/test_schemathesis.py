"""The edge as its own OpenAPI document describes it, driven by Schemathesis, which knows nothing else of it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from oa_testing.sizes import is_long, size
from services.control.edge.door.openapi.document import OPENAPI_PATH
from tests.fuzz.fire import under_fire
from tests.fuzz.scene import Scene

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]
_EXAMPLES = size(short=2, long=30)
"""For each operation."""
_PHASES = "examples,coverage,fuzzing,stateful" if is_long() else "examples,fuzzing,stateful"
"""The values at the edges of each type, which are the phase of coverage, are sent by `test_edge.py` as well."""
_GUARD_S = 380.0
_END_OUR_SESSION = "SessionService/RevokeSession|AccountService/DeleteAccount"


async def _run(scene: Scene, folder: Path, *options: str) -> tuple[int, str]:
    """Exit status and report of the program."""
    url = f"{scene.stack.urls['control']}{OPENAPI_PATH}"
    program = [str(Path(sys.executable).parent / "schemathesis"), "run", url, "--seed", "20261127", "--no-color"]
    limits = ["--phases", _PHASES, "--max-examples", str(_EXAMPLES), "--checks", "not_a_server_error"]
    limits += ["--generation-database", "none"]
    process = await asyncio.create_subprocess_exec(
        *program, *limits, *options, cwd=folder, stdout=PIPE, stderr=STDOUT, env={"PATH": os.environ["PATH"]}
    )
    async with asyncio.timeout(_GUARD_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_no_request_of_a_person_is_a_server_error(scene: Scene, tmp_path: Path) -> None:
    token = (await scene.sign_in("ann")).access_token
    async with under_fire(scene, "control", moves=True):
        status, report = await _run(
            scene, tmp_path, "--header", f"Authorization: Bearer {token}", "--exclude-path-regex", _END_OUR_SESSION
        )
    assert status == 0, report[-4000:]
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", report)
    assert tested, report[-4000:]
    assert int(tested[1]) == int(tested[2]) - 3 == int(tested[3]), "all but those that end the session"


async def test_no_request_of_a_stranger_is_a_server_error(scene: Scene, tmp_path: Path) -> None:
    async with under_fire(scene, "control", moves=True):
        status, report = await _run(scene, tmp_path)
    assert status == 0, report[-4000:]
