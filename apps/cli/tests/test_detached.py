"""A stack that outlives the command that starts it; and the README's sixty seconds, pasted as one block."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from apps.cli.commands.local.detached import _refusal_of, _told_in
from apps.cli.exits import Exit
from apps.cli.tests.program import REPOSITORY, TIMEOUT_S, Program
from oa_localstack.installation.state import read_state
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import free_port

PATIENCE_S = 4 * TIMEOUT_S
_BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


@pytest_asyncio.fixture
async def program(scratch: Path) -> AsyncIterator[Program]:
    base = str(free_port(tuple(PORT_OFFSETS.values())))
    program = Program(scratch, {"OA_HOME": str(scratch / "stack"), "OA_PORT_BASE": base})
    yield program
    await program("down")


def _sixty_seconds() -> tuple[str, str]:
    """The commands, and the request with curl."""
    section = (REPOSITORY / "README.md").read_text("utf-8").partition("## Sixty seconds\n")[2].partition("\n## ")[0]
    first, second = _BLOCK.findall(section)
    return first, second


@pytest.mark.long
async def test_sixty_seconds_of_the_readme_as_one_block(program: Program, scratch: Path) -> None:
    (scratch / ".venv").symlink_to(sys.prefix)
    commands, request = _sixty_seconds()
    port = int(program._env["OA_PORT_BASE"]) + PORT_OFFSETS["control_http"]
    script = f"set -euo pipefail\n{commands}{request.replace('localhost:8080', f'127.0.0.1:{port}')}\noa down\nwait\n"
    async with program._run("bash", "-c", script, env=None) as process:
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate()
    assert process.returncode == 0, (stdout, stderr)
    said = stdout.decode()
    assert said.index("Ready. control ") < said.index("Signed in at ") < said.index("succeeded")
    assert said.count("1\n2\n3\n") == 2
    assert "is proved: signature, " in said
    assert '"challengeId"' in said
    assert read_state(scratch / "stack") is None


async def test_it_returns_when_ready_and_down_stops_it(program: Program, scratch: Path) -> None:
    up = await program("up", "--detach", "--json")
    assert up.status == Exit.OK, up.stderr
    (ready,) = up.documents
    log = scratch / "stack" / "logs" / "oa.log"
    assert (ready["ready"], ready["log"]) == (True, str(log))
    assert (await program("status")).status == Exit.OK
    assert os.getsid(ready["pid"]) == ready["pid"], "no terminal's end reaches it"
    second = await program("up", "--detach")
    assert (second.status, second.stderr.partition(":")[0]) == (Exit.REFUSED, "already_exists")
    assert (await program("status")).status == Exit.OK
    assert (await program("down")).stdout == b"Stopped.\n"
    assert (await program("down")).stdout == b"No stack runs here.\n"
    assert any(json.loads(line).get("ready") for line in log.read_text("utf-8").splitlines())
    assert log.stat().st_mode & 0o077 == 0


async def test_a_signal_before_it_is_ready_stops_it(program: Program, scratch: Path) -> None:
    home = scratch / "stack"
    async with program.started("up", "--detach") as up:
        async with asyncio.timeout(PATIENCE_S):
            while read_state(home) is None:
                await asyncio.sleep(0.01)
            up.send_signal(signal.SIGINT)
            _, err = await up.communicate()
    if up.returncode != Exit.OK:  # else the signal came when all was done
        assert (up.returncode, err) == (Exit.INTERRUPTED, b"interrupted\n")
        assert read_state(home) is None


async def test_a_start_that_fails_is_refused_with_the_log(program: Program, scratch: Path) -> None:
    """Somebody has a port of it."""
    port = int(program._env["OA_PORT_BASE"]) + PORT_OFFSETS["control_http"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = await program("up", "--detach")
        as_json = await program("up", "--detach", "--json")
    assert (done.status, done.stdout) == (Exit.REFUSED, b"")
    assert done.stderr.startswith("port_in_use (OA_")
    assert (as_json.error["reason"], as_json.stdout) == ("port_in_use", b"")
    assert read_state(scratch / "stack") is None


def test_the_refusal_comes_with_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "oa.log"
    told = json.dumps({"error": {"reason": "start_failed", "message": "runtime ended; read its log", "field": ""}})
    log.write_text(f"of an earlier start\n{{'postgres': 'started'}}\n{told}\n", "utf-8")
    refusal = _refusal_of(log, len("of an earlier start\n"), 70)
    assert refusal.reason == "start_failed"
    assert refusal.message.splitlines() == [
        *("runtime ended; read its log", f"The last lines of {log}:", "  {'postgres': 'started'}")
    ]


def test_an_end_without_a_word_is_told_too(tmp_path: Path) -> None:
    log = tmp_path / "oa.log"
    log.write_text("Killed\n", "utf-8")
    refusal = _refusal_of(log, 0, -9)
    assert refusal.message.startswith(f"the stack ended with status -9 before it was ready; read its log {log}\n")
    assert refusal.message.endswith("\n  Killed")


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"error": 1}', '{"error": {"reason": "no such"}}'])
def test_what_tells_no_error(line: str) -> None:
    assert _told_in(line) is None
