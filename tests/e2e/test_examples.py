"""What stands in examples/ and in the tutorial does what it says, as a process of its own against a real stack."""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from oa_client.core.models import SyncGrant
from oa_client.core.store import CursorStore
from oa_client.cpython.network import WebSockets
from oa_client.follow.subscription import Subscription
from oa_client.follow.updates import Applied, Refused
from oa_khala.topics import run_events
from oa_runlog.wire import decode_event
from oa_testing.plain_http import plain_http
from oa_testing.postgres import free_port
from oa_testing.stack import StackUnderTest
from oa_testing.waiting import PATIENCE_S
from openagents import Client, ExecSpec, Refusal, events
from tests.e2e.callers import Caller, caller_of
from tests.e2e.world import RUN_TIMEOUT_S
from tests.house.files import REPO

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICE = "dev_01JD8V0000000000000000000A"
_PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest_asyncio.fixture(loop_scope="module")
async def caller(shared_stack: StackUnderTest, tmp_path: Path) -> AsyncIterator[Caller]:
    async with caller_of(shared_stack, tmp_path) as caller:
        yield caller


@asynccontextmanager
async def python(caller: Caller, folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that was started elsewhere than here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OA_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env=kept | caller.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def done(caller: Caller, folder: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors of a program."""
    async with python(caller, folder, *arguments) as process, asyncio.timeout(RUN_TIMEOUT_S):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def test_start_a_run(caller: Caller, tmp_path: Path) -> None:
    example = str(REPO / "examples" / "start_a_run.py")
    async with caller.world.worker():
        code, stdout, stderr = await done(caller, tmp_path, example, "sh", "-c", "echo one; echo two")
        assert (code, stdout) == (0, "one\ntwo\n"), stderr
        assert "succeeded in" in stderr
        code, stdout, stderr = await done(caller, tmp_path, example, "sh", "-c", "exit 7")
        assert (code, stdout) == (1, "")
        assert "nonzero_exit" in stderr
        assert "Traceback" not in stderr


def piping(caller: Caller, folder: Path, programs: Path) -> Caller:
    """The caller who has `oa` in the folder `programs`, and its files below `folder`."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return replace(caller, env=caller.env | {"PATH": path, "OA_CLIENT_HOME": str(folder / "oa")})


async def test_a_pipeline_of_commands(caller: Caller, tmp_path: Path) -> None:
    caller = piping(caller, tmp_path, Path(sys.executable).parent)
    example = str(REPO / "examples" / "exec_pipeline.py")
    lines = (r"printf 'b\na\nb\377\n'", "sort", "sh -c 'echo aside >&2; cat -v'")
    async with caller.world.worker():
        code, stdout, stderr = await done(caller, tmp_path, example, *lines)
        assert (code, stdout) == (0, "a\nb\nbM-^?\n"), stderr
        assert stderr.count(", and proved\n") == 3
        assert "aside\n" in stderr
        never = tmp_path / "never"
        code, stdout, stderr = await done(caller, tmp_path, example, "echo b", "sh -c 'exit 7'", f"touch {never}")
        assert (code, stdout, never.exists()) == (1, "", False), stderr
        assert "command 2 of 3, \"sh -c 'exit 7'\": run_" in stderr
        assert "(nonzero_exit)" in stderr
        assert "Traceback" not in stderr


async def test_a_pipeline_stops_at_a_receipt_that_proves_nothing(caller: Caller, tmp_path: Path) -> None:
    doubting = tmp_path / "oa-that-doubts" / "oa"
    doubting.parent.mkdir()
    doubting.write_text("#!/bin/sh\necho signature_invalid: it does not fit >&2\nexit 65\n")
    doubting.chmod(0o755)
    caller, never = piping(caller, tmp_path, doubting.parent), tmp_path / "never"
    example = str(REPO / "examples" / "exec_pipeline.py")
    async with caller.world.worker():
        code, stdout, stderr = await done(caller, tmp_path, example, "echo b", f"touch {never}")
    assert (code, stdout, never.exists()) == (1, "", False), stderr
    assert "command 1 of 2, 'echo b': run_" in stderr
    assert "is not proved: signature_invalid" in stderr


async def test_a_pipeline_takes_the_output_of_the_last_attempt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of the first one was lost, and another one began the command anew."""
    example = runpy.run_path(str(REPO / "examples" / "exec_pipeline.py"))

    class Attempted:
        run_id = "run_1"

        async def start(self, adapter: str, spec: ExecSpec) -> Attempted:
            return self

        async def events(self) -> AsyncIterator[Any]:
            for attempt, texts in enumerate(([b"a\n"], [b"a\n", b"b\n"]), start=1):
                yield SimpleNamespace(body=events.RunStarted("wrk_1", attempt, attempt))
                for text in texts:
                    yield SimpleNamespace(body=events.TextDelta(events.TextStream.STDOUT, text))

        async def result(self) -> Any:
            return SimpleNamespace(outcome="succeeded", duration_ms=1)

    async def proved(run: Attempted) -> None:
        pass

    monkeypatch.setitem(example["one"].__globals__, "check_receipt", proved)
    assert await example["one"](Attempted(), "printf 'a\\nb\\n'", None) == b"a\nb\n"


async def test_every_python_block_of_the_tutorial_runs_after_those_before_it(caller: Caller, tmp_path: Path) -> None:
    text = (REPO / "docs" / "tutorial" / "call-from-python.md").read_text("utf-8")
    blocks = _PYTHON_BLOCK.findall(text)
    assert len(blocks) == text.count("```python\n") >= 6
    (tmp_path / "tutorial.py").write_text("\n".join([*blocks, "print('done')\n"]), "utf-8")
    agent = python(caller, tmp_path, str(REPO / "examples" / "hello_agent.py"))
    async with caller.world.worker(), agent:
        code, stdout, stderr = await done(caller, tmp_path, "tutorial.py")
    assert (code, stdout.splitlines()[-1:]) == (0, ["done"]), stdout + stderr


async def test_somebody_talks_to_an_agent(caller: Caller, tmp_path: Path) -> None:
    said = []
    chat = python(caller, tmp_path, str(REPO / "examples" / "chat.py"))
    async with chat, Client.from_env(caller.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("chat", {"name": "Ann"}, key="chat-1")
        await run.send("hello", key="m1")
        await run.send("hello", key="m1")  # as after a call whose answer was lost
        async for event in run.events():
            match event.body:
                case events.Message(text=text):
                    said.append(text)
                    await run.send("and you?" if len(said) == 1 else "bye")
        assert said == ["You say: hello", "You say: and you?"]
        assert await run.output(int) == 2
        with pytest.raises(Refusal) as refused:
            await run.send("still there?")
        assert refused.value.reason == "invalid_transition"


async def test_an_agent_asks_before_it_spends(caller: Caller, tmp_path: Path) -> None:
    answers = {"r1": ("yes", ""), "r2": ("air", ""), "r3": ("", "Grüße")}
    buyer = python(caller, tmp_path, str(REPO / "examples" / "approval.py"))
    async with buyer, Client.from_env(caller.env) as client, asyncio.timeout(RUN_TIMEOUT_S):
        run = await client.start("buyer", {"item": "tea", "price": "12.50"})
        async for event in run.events():
            match event.body:
                case events.RequestOpened(request_id=request_id):
                    option, text = answers[request_id]
                    await run.answer(request_id, option=option, text=text)
        assert await run.output(str) == "tea air: Grüße"
        asked = await run.requests()
    assert [(one.title, one.answer) for one in asked] == [
        ("Buy tea?", "yes"),
        ("How shall it come?", "air"),
        ("What is to be written on the parcel?", "Grüße"),
    ]


class Given:
    """The token that a backend gave to a browser: an `oa_client.follow.subscription.SyncTokens`."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    async def sync_token(self, topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
        granted = frozenset(self._answer["topics"])
        refused = tuple((topic, "forbidden_topic") for topic in topics if topic not in granted)
        url, lifetime_ms = self._answer["khala_url"], self._answer["expires_in_ms"]
        return SyncGrant(self._answer["token"], granted, lifetime_ms, refused, url)


async def test_a_browser_watches_the_run_that_its_backend_started_and_no_other(caller: Caller, tmp_path: Path) -> None:
    port = str(free_port((0,)))
    command = ("-m", "uvicorn", "--app-dir", str(REPO / "examples"), "browser_backend:app", "--port", port)
    async with python(caller, tmp_path, *command), plain_http(f"http://127.0.0.1:{port}") as browser:
        asked = {"text": "hello", "key": "click-1"}
        first = (await _answered(browser, "/runs", asked, user="ann")).json()
        again = (await _answered(browser, "/runs", asked, user="ann")).json()
        assert first["run_id"] == again["run_id"]
        next_token = f"/runs/{first['run_id']}/token"
        assert (await _answered(browser, next_token, {}, user="ann")).json()["topics"] == first["topics"]
        assert (await _answered(browser, next_token, {}, user="bob")).status_code == 404
        assert (await _answered(browser, "/runs", asked, user="")).status_code == 401
        users = {"ann": "b-1", "ann-b": "1", "ann@example.org": "click 1"}
        others = [await _answered(browser, "/runs", asked | {"key": key}, user=user) for user, key in users.items()]
        assert [one.status_code for one in others] == [201, 201, 201]
        assert len({one.json()["run_id"] for one in others}) == 3
        gone = await _answered(browser, "/runs/run_01JD8V0000000000000000000A/token", {}, user="ann")
        assert (gone.status_code, gone.json()["reason"]) == (404, "not_found")
    async with caller.world.worker(), asyncio.timeout(RUN_TIMEOUT_S):
        assert await _watched(first) == b"hello\n"
        async with Client.from_env(caller.env) as client:
            other = await client.start("exec", ExecSpec(("true",)))
        assert await _is_refused(first, run_events(other.run_id))


async def _answered(browser: httpx.AsyncClient, path: str, body: dict[str, str], *, user: str) -> httpx.Response:
    """The backend's answer, as soon as it listens."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await browser.post(path, json=body, headers={"x-user": user})
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def _watched(answer: dict[str, Any]) -> bytes:
    output = b""
    async with Subscription(DEVICE, "test/0", Given(answer), WebSockets(), CursorStore()) as subscription:
        await subscription.follow(*answer["topics"])
        async for update in subscription.updates():
            if isinstance(update, Applied):
                body = decode_event(update.payload).body
                if isinstance(body, events.TextDelta):
                    output += body.data
                if isinstance(body, events.RunFinished):
                    break
    return output


async def _is_refused(answer: dict[str, Any], topic: str) -> bool:
    """Whether the gateway refuses the topic although the client claims that its token carries it."""
    claimed = answer | {"topics": [topic]}
    async with Subscription(DEVICE, "test/0", Given(claimed), WebSockets(), CursorStore()) as subscription:
        await subscription.follow(topic)
        async for update in subscription.updates():
            if isinstance(update, Refused | Applied):
                return isinstance(update, Refused)
    return False
