"""The worker's program as a container runs it: configured by its environment, logging JSON, drained by SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc
import pytest

from apps.cli.tests.fake_control import TIMEOUT_S, control
from apps.worker import __main__ as program
from apps.worker.settings import WorkerSettings
from oa_platform.config.loading import load
from oa_testing.fork_server import PYTHON
from oa_testing.peers.authority import Authority, server_context
from oa_worker import WorkerLimits
from oa_worker.tests.fake_runtime import RUN, FakeRuntime
from openagents.runtime.v1.event_pb2 import ExecSpec, RunSpec

_PROGRAM = (PYTHON, "-P", "-m", "apps.worker")
_PATH = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


async def _started(env: dict[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*_PROGRAM, env={**_PATH, **env}, stdout=pipe, stderr=pipe)


async def _ended(process: asyncio.subprocess.Process) -> tuple[int | None, list[str], str]:
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode().splitlines(), err.decode()


async def test_it_executes_a_run_and_finishes_it_when_told_to_stop(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo [$PYTHONPATH$OA_API_KEY$DB_PASSWORD$PIP_INDEX]; while ! [ -e {go} ]; do sleep .02; done; echo done"
    runtime = FakeRuntime({RUN: RunSpec(adapter="exec", exec=ExecSpec(argv=["sh", "-c", script]))})
    async with runtime.running(), control(runtime) as url:
        env = {
            "OA_CONTROL_URL": url,
            "OA_API_KEY": "oak_test",
            "OA_LOG_FORMAT": "json",
            "OA_EXEC_ENV": "JAVA_HOME,PIP_*",
        }
        process = await _started(env | {"DB_PASSWORD": "s3cret", "PIP_INDEX": "mirror"})
        await runtime.until(lambda: b"]\n" in runtime.logs[RUN].text, TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        await runtime.until(lambda: "drain" in runtime.said, TIMEOUT_S)
        go.touch()
        status, lines, err = await _ended(process)
    assert (status, err, runtime.said[-1]) == (0, "", "goodbye")
    assert runtime.logs[RUN].text == b"[mirror]\ndone\n", "a command sees what was let through"
    events = [json.loads(line)["event"] for line in lines]
    assert [event for event in events if event in {"attached", "run_taken", "signal", "run_left", "stopped"}] == [
        *("attached", "run_taken", "signal", "run_left", "stopped")
    ]
    assert "oak_test" not in "".join(lines)


class Told:
    """Takes the place of the worker, and notes what it is made of."""

    limits: WorkerLimits

    def __init__(self, *_: object, limits: WorkerLimits, **more: object) -> None:
        Told.limits = limits

    async def run(self) -> None:
        """It ends at once."""


async def test_it_has_the_time_for_a_drain_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "Worker", Told)
    env = {"OA_CONTROL_URL": "http://127.0.0.1:9", "OA_API_KEY": "oak_test", "OA_WORKER_DRAIN_S": "5"}
    await program._work(load(WorkerSettings, env), None, {})
    assert Told.limits.drain_timeout_ms == 5_000
    assert WorkerLimits().drain_timeout_ms == load(WorkerSettings, env | {"OA_WORKER_DRAIN_S": ""}).work.drain_s * 1000


async def test_it_trusts_the_authority_of_a_site_that_has_its_own(tmp_path: Path) -> None:
    authority = Authority()
    issued = authority.issue()
    runtime = FakeRuntime({RUN: RunSpec(adapter="exec", exec=ExecSpec(argv=["echo", "done"]))})
    credentials = grpc.ssl_server_credentials([(issued.key, issued.certificate)])
    tls = server_context(tmp_path, issued)
    async with runtime.running(credentials), control(runtime, tls) as url:
        env = {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_test", "OA_CA_FILE": str(authority.write(tmp_path))}
        process = await _started(env)
        await runtime.until(lambda: runtime.logs[RUN].text == b"done\n", TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        status, _, err = await _ended(process)
    assert (status, err) == (0, "")


async def test_a_handshake_that_fails_is_in_the_log_and_not_on_stderr(tmp_path: Path) -> None:
    """gRPC's core would write a line of its own form for each attempt."""
    authority, issued = Authority(), Authority("Another authority").issue()
    runtime = FakeRuntime({})
    tls = server_context(tmp_path, authority.issue())
    credentials = grpc.ssl_server_credentials([(issued.key, issued.certificate)])
    async with runtime.running(credentials), control(runtime, tls) as url, asyncio.timeout(TIMEOUT_S):
        env = {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_test", "OA_CA_FILE": str(authority.write(tmp_path))}
        process = await _started(env)
        assert process.stdout is not None
        while b'"detached"' not in (line := await process.stdout.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGTERM)
        _, _, err = await _ended(process)
    assert err == ""


async def test_an_authority_that_is_none_ends_it(tmp_path: Path) -> None:
    env = {"OA_CONTROL_URL": "https://127.0.0.1:9", "OA_API_KEY": "oak_test", "OA_CA_FILE": str(tmp_path / "none")}
    status, lines, _ = await _ended(await _started(env))
    assert status == 1
    assert "can't be used" in lines[-1]


async def test_wrong_settings_are_named_all_at_once() -> None:
    status, lines, err = await _ended(await _started({"OA_WORKER_SLOTS": "0"}))
    assert (status, lines) == (2, [])
    assert all(name in err for name in ("OA_CONTROL_URL", "OA_API_KEY", "OA_WORKER_SLOTS"))


async def test_authorities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    env = {"OA_CONTROL_URL": "https://control.test", "OA_API_KEY": "oak_test", "OA_CA_FILE": str(tmp_path / "none")}
    status, lines, _ = await _ended(await _started(env))
    assert status == 1
    assert "invalid_setting" in "".join(lines)
