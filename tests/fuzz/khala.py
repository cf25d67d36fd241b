"""A connection to the real gateway that can say what no client of ours would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
from tests.fuzz.mutate import Json
from tests.fuzz.scene import Scene

_WAIT_S = 60.0
_NONCE = 77
TOPIC = "a topic's"
"""The status of an ERROR about a topic, which ends no connection."""
FRAME = client_frame_pb2.ClientFrame
PING: Json = {"ping": {"nonce": _NONCE}}


class KhalaClient:
    """A connection that is spoken to in JSON documents or raw bytes."""

    def __init__(self, socket: ws_client.ClientConnection, form: Form) -> None:
        self._socket = socket
        self._form = form

    async def say(self, document: Json) -> None:
        """Send a frame."""
        text = json.dumps(document)
        if self._form is Form.JSON:
            await self._socket.send(text)
        else:
            await self._socket.send(json_format.Parse(text, FRAME()).SerializeToString())

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
            return TOPIC
        await self._socket.wait_closed()
        return str(self._socket.close_code)


@asynccontextmanager
async def connected(scene: Scene, form: Form) -> AsyncIterator[KhalaClient]:
    """A new connection, before its HELLO."""
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
        yield KhalaClient(socket, form)
    finally:
        await socket.close()
