"""Ctrl-C at any moment is one line and status 130: a real process, which gets SIGINT when it has come to the moment."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from apps.cli.output import error_document
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_localstack.installation.ports import HOST
from oa_platform.process.interrupts import STATUS
from oa_testing.peers.listener import Listener
from oa_testing.postgres import REPOSITORY

WHEN_IMPORTED = """
import os, signal, sys
moment = sys.argv.pop(1)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from {module} import {function}
{function}()
"""
"""`oa` that gets SIGINT when it begins to load the module that its first argument names."""
LIST = ("run", "list")
SCRIPT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["oa"]
MOMENTS = [
    ("openagents", LIST),
    ("pkgutil", LIST),
    ("apps.cli.__main__", LIST),
    ("apps.cli.program", LIST),
    ("click", ("--help",)),
    ("apps.cli.sink", LIST),
    ("apps.cli.commands.runs.runs", LIST),
    ("oa_client.client", LIST),
    ("httpx", LIST),
    ("apps.cli.commands.local.stack", ("up",)),
    ("apps.cli.failures", LIST),
    ("rich.console", LIST),
    ("rich.text", LIST),
]


def _interrupted(home: Path, moment: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = Program(home, {"OA_CONTROL_URL": "http://127.0.0.1:9", "OA_API_KEY": "oak_test"})._env
    module, _, function = SCRIPT.partition(":")
    program = WHEN_IMPORTED.format(module=module, function=function)
    command = [sys.executable, "-c", program, moment, *arguments]
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize(("moment", "arguments"), MOMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_ctrl_c_while_modules_load_ends_with_one_line(moment: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = _interrupted(tmp_path, moment, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (Exit.INTERRUPTED, "", "interrupted\n")


def test_the_moment_is_what_interrupts(tmp_path: Path) -> None:
    assert _interrupted(tmp_path, "no.such.module", *LIST).returncode == Exit.UNREACHABLE


def test_with_json_an_interruption_is_an_error_document(tmp_path: Path) -> None:
    for moment in ("apps.cli.program", "apps.cli.failures"):
        done = _interrupted(tmp_path, moment, *LIST, "--json")
        assert (done.returncode, done.stdout) == (Exit.INTERRUPTED, "")
        assert json.loads(done.stderr) == {"error": error_document("interrupted", "interrupted")}
    assert _interrupted(tmp_path, "click", "run", "start", "--", "x", "--json").stderr == "interrupted\n"


def test_both_homes_of_the_status_agree() -> None:
    assert STATUS == Exit.INTERRUPTED


async def test_while_a_question_is_asked(tmp_path: Path) -> None:
    async with Program(tmp_path).started("login") as process:
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.stderr.readuntil(b"E-mail: ") == b"E-mail: "
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    assert (process.returncode, out, err) == (Exit.INTERRUPTED, b"", b"interrupted\n")


async def test_while_a_site_does_not_answer(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with Listener(never) as server:
        program = Program(tmp_path, {"OA_CONTROL_URL": f"http://{HOST}:{server.port}", "OA_API_KEY": "oak_test"})
        async with program.started("run", "show", "latest") as process, asyncio.timeout(TIMEOUT_S):
            await asked.wait()
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    assert (process.returncode, out, err) == (Exit.INTERRUPTED, b"", b"interrupted\n")
