"""Turns of a real Codex on a real stack: a worker as people start it, and a client that follows.

The only model is the test's (`oa_testing.peers.model_server`). Skipped where Codex is not installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from apps.cli.exits import Exit
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.fork_server import PYTHON
from oa_testing.peers.codex import ASKING, codex_environment, installed_codex
from oa_testing.peers.model_server import PATIENTLY, Call, ModelServer, Say, Wait
from oa_testing.postgres import FAST, free_port
from oa_testing.processes import killed_at_end
from oa_testing.stack import StackUnderTest
from oa_testing.waiting import eventually
from openagents import Client, Refusal, RunCanceled, RunEvent, RunFailed, RunHandle, events
from tests.e2e.callers import Caller, caller_of, until_said
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S

IMPATIENT = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": "4000",
    "OA_WORKER_WATCH_MS": "100",
}
POEM = [f"line {number} of a poem that is told word by word.\n" for number in range(30)]


@dataclass
class Scene:
    """A stack, a client, and a model that says what the test wrote down."""

    stack: StackUnderTest
    caller: Caller
    client: Client
    model: ModelServer
    folder: Path

    @property
    def home(self) -> Path:
        """Codex's own, of all workers on this machine."""
        return self.folder / "codex-home"

    @property
    def work(self) -> Path:
        """Where Codex works."""
        return self.folder / "work"

    async def start(self, prompt: str, **more: object) -> RunHandle:
        """One turn."""
        return await self.client.start(
            "codex",
            {"prompt": prompt, "working_directory": str(self.work), "sandbox": "workspace-write", **more},
            thread_id="talk-1",
        )

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """`oa worker start --adapter codex`."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        codex = {
            **codex_environment(self.home, self.model.base_url, ASKING),
            "OA_CODEX_PROGRAM": str(installed_codex()),
        }
        env = {**codex, **self.stack.env, **self.caller.env, "PYTHONPATH": path}
        argv = (PYTHON, "-P", "-m", "apps.cli", "worker", "start", "--adapter", "codex")
        process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=self.folder)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await process.wait()

    def app_servers(self) -> list[int]:
        """Processes of Codex of this test, from the one that was started to those that it started."""
        ours = f"CODEX_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                argv, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except (OSError, NotADirectoryError):
                continue
            if b"\0app-server\0" in argv and ours in environ.split(b"\0"):
                found.append(int(entry.name))
        return sorted(found)

    async def until_no_app_server(self) -> None:
        """Nothing is left of them."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while self.app_servers():
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def scene(scratch: Path) -> AsyncIterator[Scene]:
    installed_codex()
    (scratch / "work").mkdir()
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": IMPATIENT},
    )
    await stack.start()
    async with caller_of(stack, scratch) as caller, Client.from_env(caller.env) as client, ModelServer() as model:
        yield Scene(stack, caller, client, model, scratch)
    await stack.stop()


async def log_of(run: RunHandle) -> list[RunEvent]:
    return [event async for event in run.events()]


def text_of(log: list[RunEvent]) -> str:
    deltas = [event.body for event in log if isinstance(event.body, events.TextDelta)]
    return b"".join(delta.data for delta in deltas if delta.stream is events.TextStream.ASSISTANT).decode()


def turns_of(log: list[RunEvent]) -> list[events.TurnStatus]:
    kinds = [event.body.kind for event in log if isinstance(event.body, events.CodexEvent)]
    return [kind.status for kind in kinds if isinstance(kind, events.TurnStatusChanged)]


def thread_of(log: list[RunEvent]) -> str:
    """The Codex thread of a turn, as its first event names it. Codex may warn before there is one, for example that the
    system has no sandbox for it."""
    told = (event.body.codex_thread_id for event in log if isinstance(event.body, events.CodexEvent))
    return next(filter(None, told))


async def until_asked(run: RunHandle) -> events.RequestOpened:
    async for event in run.events():
        if isinstance(event.body, events.RequestOpened):
            return event.body
    raise AssertionError("the run has ended")


async def test_turns_approvals_cancel_and_steer(scene: Scene) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S), scene.worker():
        poem = "".join(POEM)
        scene.model.script([Say(poem)])
        first = await scene.start("a poem")
        result = await first.output(dict[str, str])
        log = await log_of(first)
        assert (result["text"], text_of(log)) == (poem, poem)
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        assert [event.body.text for event in log if isinstance(event.body, events.Message)] == [poem]
        assert [event.body.input_tokens for event in log if isinstance(event.body, events.Usage)] == [10]
        assert turns_of(log) == [events.TurnStatus.IN_PROGRESS, events.TurnStatus.COMPLETED]

        scene.model.script([Call("exec_command", {"cmd": "touch made", **PATIENTLY})], [Say("It is there.")])
        second = await scene.start("now make it", resume=result["codex_thread_id"])
        asked = await until_asked(second)
        assert "touch made" in asked.title
        await second.answer(asked.request_id, option="yes")
        assert (await second.output(dict[str, str]))["codex_thread_id"] == result["codex_thread_id"]
        await eventually((scene.work / "made").exists)  # the model may be done before the command

        wait = Wait()
        scene.model.script([Say("I begin"), wait], [Say("To the left.")])
        third = await scene.start("go", resume=result["codex_thread_id"])
        await until_said(third, "begin")
        await third.send("to the left")
        async for event in third.events():
            match event.body:
                case events.CodexEvent(kind=events.ControlReceipt(outcome=outcome)):
                    assert outcome is events.ControlOutcome.APPLIED
                    wait.opened.set()
        assert (await third.output(dict[str, str]))["text"] == "To the left."
        assert scene.model.asked("to the left")

        with pytest.raises(Refusal) as refused:  # where it is created: the worker has told the types
            await scene.start("go", sandbox="none")
        assert (refused.value.reason, refused.value.metadata["path"]) == ("invalid_value", "$.sandbox")

        scene.model.script([Say("I begin"), Wait()])
        fourth = await scene.start("go")
        await until_said(fourth, "begin")
        await fourth.cancel("enough")
        with pytest.raises(RunCanceled):
            await fourth.result()
        assert turns_of(await log_of(fourth))[-1] is events.TurnStatus.INTERRUPTED
        await scene.until_no_app_server()


@asynccontextmanager
async def talking(scene: Scene, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`oa codex`, with pipes for a keyboard and a screen."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, **scene.stack.env, **scene.caller.env, "PYTHONPATH": path}
    env["OA_CLIENT_HOME"] = str(scene.folder / "talker")
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-P", "-m", "apps.cli", "codex", "--sandbox", "workspace-write", *arguments),
        env=env,
        cwd=scene.work,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with killed_at_end(process):
        yield process


async def shown(process: asyncio.subprocess.Process, words: str) -> str:
    """What is shown until these words are."""
    assert process.stdout is not None
    text = ""
    while words not in text:
        piece = await process.stdout.read(4096)
        assert piece, text
        text += piece.decode()
    return text


def types(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


async def test_a_person_talks_to_codex(scene: Scene) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S), scene.worker():
        wait = Wait()
        scene.model.script([Call("exec_command", {"cmd": "touch made", **PATIENTLY})], [Say("It is there.")])
        async with talking(scene, "make it") as oa:
            text = await shown(oa, "yes or no?")
            assert "Run /bin/bash -lc 'touch made'?" in text
            assert f"  In {scene.work}." in text.splitlines()
            assert not (scene.work / "made").exists()
            types(oa, "YES")
            assert "It is there." in await shown(oa, "succeeded")
            await eventually((scene.work / "made").exists)  # the model may be done before the command

            scene.model.script([Say("I begin"), wait], [Say("To the left.")])
            types(oa, "now go")
            await shown(oa, "begin")
            types(oa, "to the left")
            await shown(oa, "the request was applied")
            wait.opened.set()
            await shown(oa, "succeeded")
            assert scene.model.asked("It is there.")
            assert scene.model.asked("to the left")

            scene.model.script([Say("I begin"), Wait()])
            types(oa, "again")
            await shown(oa, "begin")
            oa.send_signal(signal.SIGINT)
            await shown(oa, "the turn was interrupted")
            assert oa.stdin is not None
            oa.stdin.close()
            assert await oa.wait() == Exit.RUN_CANCELED

        options = [{"label": "red", "description": "Warm."}, {"label": "blue", "description": "Cold."}]
        questions = [
            {"id": "color", "header": "Color", "question": "Which color?", "options": options},
            {"id": "again", "header": "Again", "question": "And then?", "options": options},
        ]
        scene.model.script([Call("request_user_input", {"questions": questions})], [Say("So be it.")])
        async with talking(scene, "--continue", "latest", "paint it") as oa:
            text = await shown(oa, "which one?")
            assert "  2: blue" in text.splitlines()
            assert "And then?" not in text, "one after the other"
            types(oa, "Blue")
            await shown(oa, "And then?")
            types(oa, "0")
            await shown(oa, "your answer?")
            types(oa, "as you like")
            assert "So be it." in await shown(oa, "succeeded")
        told = json.loads(scene.model.requests[-1]["input"][-1]["output"])
        assert told == {"answers": {"color": {"answers": ["blue"]}, "again": {"answers": ["as you like"]}}}

        scene.model.script([Say("Left it was.")])
        async with talking(scene, "--continue", "latest", "which way?") as oa:
            assert oa.stdin is not None
            oa.stdin.close()
            await shown(oa, "Left it was.")
            assert await oa.wait() == Exit.OK
        assert "To the left." in json.dumps(scene.model.requests[-1])
        runs = (await scene.caller.world.client.commands.runs()).runs
        assert len({str(run.document["threadId"]) for run in runs}) == 1

        scene.model.script([Say("I begin"), Wait()])
        async with talking(scene, "and off") as oa:
            await shown(oa, "begin")
            oa.send_signal(signal.SIGINT)
            await shown(oa, "Interrupting the turn")
            oa.send_signal(signal.SIGINT)  # in the turn, or after it: it is the second one
            assert await oa.wait() == Exit.INTERRUPTED


async def test_kills_in_the_middle_of_a_turn(scene: Scene) -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        async with scene.worker() as worker:
            wait = Wait()
            scene.model.script([Say("Before."), wait, Say("After.")])
            run = await scene.start("runtime dies")
            await until_said(run, "Before.")
            scene.stack.kill("runtime")
            wait.opened.set()
            await scene.until_no_app_server()  # the turn does not wait for the runtime
            await scene.stack.start_service("runtime")
            assert (await run.output(dict[str, str]))["text"] == "After."
            log = await log_of(run)
            assert [event.body.text for event in log if isinstance(event.body, events.Message)] == ["Before.", "After."]
            assert [event.body.attempt for event in log if isinstance(event.body, events.RunStarted)] == [1]

            scene.model.script([Say("Before."), Wait()])
            run = await scene.start("the app-server dies")
            await until_said(run, "Before.")
            for pid in scene.app_servers():
                os.kill(pid, signal.SIGKILL)
            assert await failure_of(run) == "codex_died"
            await scene.until_no_app_server()

            scene.model.script([Say("Before."), Wait()])
            run = await scene.start("the worker dies")
            await until_said(run, "Before.")
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            await scene.until_no_app_server()
        async with scene.worker():
            assert await failure_of(run) == "codex_turn_lost"
            log = await log_of(run)
            assert [event.body.attempt for event in log if isinstance(event.body, events.RunStarted)] == [1, 2]
            assert len(scene.model.requests) == 3, "nobody asked the model again"

            scene.model.script([Say("I go on.")])
            resumed = await scene.start("go on", resume=thread_of(log))
            result = await resumed.output(dict[str, str])
            assert (result["codex_thread_id"], result["text"]) == (thread_of(log), "I go on.")
            assert "the worker dies" in json.dumps(scene.model.requests[-1]), "the thread has what the lost turn began"


async def test_the_gateway_is_killed_in_the_middle_of_a_turn(scene: Scene) -> None:
    first, second, third = ("".join(POEM[start : start + 10]) for start in (0, 10, 20))
    away, back = Wait(), Wait()
    scene.model.script([Say(first), away, Say(second), back, Say(third)])
    seen: list[RunEvent] = []

    async def follow(run: RunHandle) -> None:
        async for event in run.events():
            seen.append(event)  # noqa: PERF401 - others look at what is there so far

    async with asyncio.timeout(RUN_TIMEOUT_S), scene.worker():
        run = await scene.start("the gateway dies")
        following = asyncio.create_task(follow(run))
        await eventually(lambda: text_of(seen) == first)
        connections = scene.caller.way.accepted
        scene.stack.kill("khala_gateway")
        away.opened.set()
        await back.reached.wait()
        await until_stored(run, seen[-1].seq)  # the turn goes on, though nobody can follow it
        assert text_of(seen) == first
        await scene.stack.start_service("khala_gateway")
        await eventually(lambda: text_of(seen) == first + second)
        back.opened.set()
        assert (await run.output(dict[str, str]))["text"] == third
        await following
        assert scene.caller.way.accepted > connections
        assert [event.seq for event in seen] == list(range(1, (await run.state()).latest_seq + 1))
        assert seen == await log_of(run)
        assert text_of(seen) == first + second + third
        assert [event.body.text for event in seen if isinstance(event.body, events.Message)] == [first, second, third]
        assert [event.body.attempt for event in seen if isinstance(event.body, events.RunStarted)] == [1]
        assert turns_of(seen) == [events.TurnStatus.IN_PROGRESS, events.TurnStatus.COMPLETED]


async def until_stored(run: RunHandle, seq: int) -> None:
    """Until the run's log has more than that."""
    while (await run.state()).latest_seq <= seq:
        await asyncio.sleep(0.05)


async def failure_of(run: RunHandle) -> str:
    with pytest.raises(RunFailed) as failed:
        await run.result()
    return failed.value.reason
