"""`khala.v2.json`, as clients see it that know nothing of our contracts."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import websockets.asyncio.client as ws_client
from websockets.typing import Subprotocol

from oa_khala.frames import Form
from oa_testing.metrics import value_of
from oa_testing.waiting import PATIENCE_S
from openagents.projection.v1 import run_summary_pb2
from openagents.runtime.v1 import event_pb2, run_pb2
from openagents.sync.v1 import frame_pb2
from services.khala_gateway.feeds.metrics import UNREADABLE_PAYLOADS
from services.khala_gateway.tests.harness import T2, USER, Limits, Stack, T, U, running

PAGE = Path(__file__).parents[3] / "docs" / "protocol" / "khala.md"
ABOUT = {"deviceId": "dev_1", "clientBuildId": "foreign/1", "protocolVersion": 1, "schemaVersion": 1}


def said(text: str) -> bytes:
    """An event in which the agent says something."""
    event = event_pb2.RunEvent(run_id=T2.split(":")[1], seq=1, lease_epoch=1, schema_version=1)
    event.recorded_time.FromJsonString("2026-01-01T12:00:00Z")
    event.body.text_delta.stream = event_pb2.TEXT_STREAM_ASSISTANT
    event.body.text_delta.data = text.encode()
    return event.SerializeToString(deterministic=True)


class Foreign:
    """A client on `websockets` and `json`."""

    def __init__(self, socket: ws_client.ClientConnection) -> None:
        self.socket = socket

    async def say(self, frame: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(frame))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The payload of the next frame, which is of that kind."""
        frame = await self.frame(kind)
        payload: dict[str, Any] = frame["payload"]
        return payload

    async def frame(self, kind: str) -> dict[str, Any]:
        """The next frame, which is of that kind."""
        async with asyncio.timeout(PATIENCE_S):
            text = await self.socket.recv()
        assert isinstance(text, str)
        frame: dict[str, Any] = json.loads(text)
        assert frame["kind"] == f"FRAME_KIND_{kind}", frame
        return frame


@contextlib.asynccontextmanager
async def foreign(stack: Stack, *topics: str, snapshots: bool = False) -> AsyncIterator[Foreign]:
    """A client that has been welcomed and has subscribed."""
    forms = [Subprotocol(Form.JSON.value), Subprotocol(Form.READABLE.value)]
    async with ws_client.connect(stack.url, subprotocols=forms, compression=None, proxy=None) as socket:
        assert socket.subprotocol == Form.READABLE.value
        client = Foreign(socket)
        await client.say({"hello": {"token": stack.token(*topics), **ABOUT}})
        assert (await client.hear("WELCOME"))["connectionId"].startswith("con_")
        wanted = [{"topic": topic, "takesSnapshots": snapshots} for topic in topics]
        await client.say({"subscribe": {"topics": wanted}})
        yield client


async def test_what_can_not_be_read_comes_in_its_turn_and_the_stream_goes_on() -> None:
    async with running() as stack:
        stack.runtime.create(T2, USER)
        stack.runtime.append(T2, payload=said("one"))
        async with foreign(stack, T2) as client, foreign(stack, T2) as other:
            unread = value_of(UNREADABLE_PAYLOADS)
            for one in (client, other):
                assert (await one.hear("SUBSCRIBED"))["plan"] == "DELIVERY_PLAN_REPLAY"
                assert (await one.frame("EVENT"))["text"] == "one"
                assert (await one.hear("CAUGHT_UP"))["seq"] == "1"
            stack.runtime.append(T2, payload=b"\xff\xff")
            stack.runtime.append(T2, payload=said("three"))
            for one in (client, other):
                broken = await one.frame("EVENT")
                assert "payload" not in broken
                assert (broken["seq"], broken["payloadIncomplete"], broken["payloadBytes"]) == ("2", True, "//8=")
                assert (await one.frame("EVENT"))["text"] == "three"
            # Both were given what was written once.
            assert value_of(UNREADABLE_PAYLOADS) == unread + 1


async def test_a_snapshot_and_a_refusal_are_readable_too() -> None:
    async with running() as stack:
        log = stack.projector.logs[U]
        log.has_snapshot = True
        documents = [run_summary_pb2.RunSummary(run_id="run_1", title="a title").SerializeToString()]
        log.document = frame_pb2.DocumentSet(documents=documents).SerializeToString()
        async with foreign(stack, U) as client:
            assert (await client.hear("SUBSCRIBED"))["plan"] == "DELIVERY_PLAN_SNAPSHOT"
            [document] = (await client.hear("SNAPSHOT"))["documents"]
            assert (document["runId"], document["title"]) == ("run_1", "a title")
            await client.hear("CAUGHT_UP")
            await client.say({"subscribe": {"topics": [{"topic": T}]}})
            assert (await client.hear("ERROR"))["reasonName"] == "forbidden_topic"


async def test_a_snapshot_of_a_run_is_readable_and_whole() -> None:
    async with running(Limits().with_session(snapshot_part_bytes=64)) as stack:
        log = stack.runtime.logs[T]
        log.has_snapshot_on_request = True
        run = run_pb2.Run(run_id="run_1", spec=event_pb2.RunSpec(title="a title" * 100))
        log.document = run_pb2.RunSnapshot(run=run, steps=7).SerializeToString()
        async with foreign(stack, T, snapshots=True) as client:
            await client.hear("SUBSCRIBED")
            snapshot = await client.hear("SNAPSHOT")
            assert (snapshot["run"]["spec"]["title"], snapshot["steps"]) == ("a title" * 100, "7")


async def test_the_program_of_the_page_prints_what_the_page_shows() -> None:
    section = PAGE.read_text("utf-8").partition("## Frames that people can read")[2].partition("\n## ")[0]
    program = section.partition("```python\n")[2].partition("```")[0]
    shown = section.partition("```json\n")[2].partition("```")[0].splitlines()
    async with running() as stack:
        stack.runtime.create(T2, USER)
        stack.runtime.append(T2, payload=said("Grüße"))
        names = {"KHALA_URL": stack.url, "SYNC_TOKEN": stack.token(T2), "DEVICE_ID": "dev_1", "TOPIC": T2}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=os.environ | names, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(4 * PATIENCE_S):
                lines = [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(1 + len(shown))]
        finally:
            process.kill()
            await process.wait()
    assert json.loads(lines[0])["kind"] == "FRAME_KIND_WELCOME"
    assert lines[1:] == shown
