"""`oa worker start` and the signals that stop it: a real process with a real command, at a stand-in of the site."""

from __future__ import annotations

import asyncio
import itertools
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_platform.process.signals import STOP_SIGNALS
from oa_worker.tests.fake_runtime import RUN, FakeRuntime
from oa_worker.tests.test_exec import alive, until_dead
from openagents.control.v1 import service_account_service_pb2 as pb
from openagents.runtime.v1.event_pb2 import ExecSpec, RunSpec

TIMEOUT_S = 100.0


@asynccontextmanager
async def control(runtime: FakeRuntime, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Its URL; it knows one answer: a worker token."""
    token = pb.ExchangeKeyResponse(token="token", runtime_grpc_address=runtime.address)
    token.expire_time.FromSeconds(int(time.time()) + 3600)
    body = token.SerializeToString()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def worker(home: Path, script: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, FakeRuntime, int]]:
    """A worker at work on a command that says its pid first."""
    runtime = FakeRuntime({RUN: RunSpec(adapter="exec", exec=ExecSpec(argv=["sh", "-c", f"echo $$; {script}"]))})
    async with runtime.running(), control(runtime) as url:
        env = {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_test"}
        program = Program(home)
        async with program.started("worker", "start", "--adapter", "exec", env=env) as process:
            await runtime.until(lambda: runtime.logs[RUN].text.endswith(b"\n"), TIMEOUT_S)
            yield process, runtime, int(runtime.logs[RUN].text)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(TIMEOUT_S):
        _, err = await process.communicate()
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_the_first_signal_drains_and_says_goodbye(tmp_path: Path, number: signal.Signals) -> None:
    go = tmp_path / "go"
    async with worker(tmp_path, f"while ! [ -e {go} ]; do sleep .02; done") as (process, runtime, _):
        process.send_signal(number)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        go.touch()
        status, err = await ended(process)
    assert (status, runtime.said[-1]) == (Exit.OK, "goodbye")
    assert runtime.logs[RUN].finished
    assert err.splitlines() == ["Finishing what is at hand; once more stops at once.", "Stopped."]


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(STOP_SIGNALS, 2), (signal.SIGTERM,) * 2])
async def test_the_second_signal_ends_it_at_once_with_its_commands(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    """The command would go on for longer than the worker drains."""
    async with worker(tmp_path, "exec sleep 307") as (process, runtime, command):
        process.send_signal(first)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        assert alive(command)
        process.send_signal(second)
        status, err = await ended(process)
        await until_dead(command)
    assert status == Exit.INTERRUPTED
    assert err.splitlines() == ["Finishing what is at hand; once more stops at once."]
    assert "goodbye" not in runtime.said
