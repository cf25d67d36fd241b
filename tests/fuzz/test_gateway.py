"""Every frame that a client may send, wrong in every way that its descriptor knows, at the real gateway.

Bytes that are no frames at all, and strange WebSocket, are `services/khala_gateway/tests/test_fuzz.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import websockets.asyncio.client as ws_client
from google.protobuf import json_format
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.wire import decode_server_frame
from openagents.sync.v1 import client_frame_pb2
from tests.fuzz.doors import Outcome, wait_of
from tests.fuzz.fire import under_fire
from tests.fuzz.mutate import Json, mutations
from tests.fuzz.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WAIT_S = 60.0
_NONCE = 77
_POLICY_VIOLATION = 1008
_MAX_MESSAGE = 64 * 1024
_TOPIC = "a topic's"
_FRAME = client_frame_pb2.ClientFrame
BODIES = [field.name for field in _FRAME.DESCRIPTOR.fields]
PING: Json = {"ping": {"nonce": _NONCE}}


async def _examples(scene: Scene) -> Mapping[str, Json]:
    topic = f"user:{scene.ann.user_id}:runs"
    token = await scene.sync_token(scene.ann, topic)
    about = {"client_build_id": "fuzz/1", "protocol_version": 1, "schema_version": 1}
    cursor = {"topic": topic, "epoch": "e", "applied_seq": 0}
    return {
        "hello": {"hello": {"token": token, "device_id": scene.ann.device_id, **about}},
        "subscribe": {"subscribe": {"topics": [{"topic": topic, "cursor": cursor}]}},
        "unsubscribe": {"unsubscribe": {"topics": [topic]}},
        "refresh_token": {"refresh_token": {"token": token}},
        "ping": PING,
    }


class _Client:
    """A connection that is spoken to in JSON documents or raw bytes."""

    def __init__(self, socket: ws_client.ClientConnection, form: Form) -> None:
        self._socket = socket
        self._form = form

    async def say(self, document: Json) -> None:
        text = json.dumps(document)
        if self._form is Form.JSON:
            await self._socket.send(text)
        else:
            await self._socket.send(json_format.Parse(text, _FRAME()).SerializeToString())

    async def hear(self) -> Outcome:
        """The first ERROR, or the answer to our ping; a connection that ends without an ERROR is a defect."""
        try:
            async with asyncio.timeout(_WAIT_S):
                while True:
                    frame = self._read(await self._socket.recv())
                    if isinstance(frame, frames.ErrorFrame):
                        refusal = Refusal(frame.reason, frame.message, field=frame.field)
                        return Outcome(await self._code(frame), refusal, frame.message)
                    if isinstance(frame, frames.Heartbeat) and frame.nonce == _NONCE:
                        return Outcome("OK", None)
        except ConnectionClosed:
            return Outcome(str(self._socket.close_code), Refusal("internal", "closed without an ERROR"))

    def _read(self, data: str | bytes) -> frames.ServerFrame:
        return decode_server_frame(data if isinstance(data, bytes) else data.encode(), self._form)

    async def _code(self, frame: frames.ErrorFrame) -> str:
        """The close code, unless the ERROR is about a topic, and the connection goes on."""
        if frame.topic:
            return _TOPIC
        await self._socket.wait_closed()
        return str(self._socket.close_code)


@asynccontextmanager
async def _connected(scene: Scene, form: Form) -> AsyncIterator[_Client]:
    subprotocols = [Subprotocol(form.value)]
    url = scene.stack.urls["khala"]
    socket = None
    while socket is None:
        try:
            socket = await ws_client.connect(url, subprotocols=subprotocols, compression=None, proxy=None)
        except InvalidStatus as refused:
            if not (wait_s := wait_of(refused.response.status_code, refused.response.headers)):
                raise
            await asyncio.sleep(wait_s)
    try:
        yield _Client(socket, form)
    finally:
        await socket.close()


async def _shoot(scene: Scene, form: Form, hello: Json, body: Json) -> Outcome:
    async with _connected(scene, form) as client:
        try:
            if hello is not None:
                await client.say(hello)
            await client.say(body)
            await client.say(PING)
        except ConnectionClosed:
            pass  # what it said before it hung up is read below
        return await client.hear()


def _code(outcome: Outcome) -> str:
    """The close code that the refusal's reason has; the general one where it has none of its own."""
    if outcome.refusal is None or outcome.status == _TOPIC:
        return outcome.status
    return str(outcome.refusal.info.close_code or _POLICY_VIOLATION)


@pytest.mark.parametrize("form", Form, ids=lambda form: str(form.value))
@pytest.mark.parametrize("body", BODIES)
async def test_frames(scene: Scene, body: str, form: Form) -> None:
    """A wrong frame ends its connection with a typed ERROR and the close code of its reason; the gateway goes on."""
    examples = await _examples(scene)
    hello = None if body == "hello" else examples["hello"]
    every = mutations(_FRAME.DESCRIPTOR, examples[body])
    sayable = (one for one in every if len(json.dumps(one.body)) < _MAX_MESSAGE)  # longer ones are RFC 6455's affair
    found = [one for one in sayable if form is Form.JSON or not one.json_only]
    async with under_fire(scene, "khala_gateway") as tally:
        for mutation in found:
            outcome = await _shoot(scene, form, hello, mutation.body)
            tally.look_closer(mutation, outcome, code=_code(outcome))
    outcome = await _shoot(scene, form, None, examples["hello"])
    assert outcome.refusal is None, outcome.refusal


async def test_what_belongs_to_others(scene: Scene) -> None:
    """A topic that the token doesn't carry is refused alone, whosever it is."""
    hello = (await _examples(scene))["hello"]
    topics = [f"run:{scene.foreign['run']}:events", f"user:{scene.bob.user_id}:runs", f"org:{scene.bob.org_id}:runs"]
    async with under_fire(scene, "khala_gateway") as tally:
        for topic in topics:
            outcome = await _shoot(scene, Form.PROTO, hello, {"subscribe": {"topics": [{"topic": topic}]}})
            tally.look(topic, outcome, code=_TOPIC)
            assert outcome.refusal is not None
            assert outcome.refusal.reason == "forbidden_topic"
