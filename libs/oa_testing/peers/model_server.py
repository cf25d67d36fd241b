"""A model's provider on loopback that follows a test's script: `POST /responses`, answered by server-sent events.

    async with ModelServer() as model:
        model.script([Say("I look."), Call("exec_command", {"cmd": "ls"})], [Say("Done.")])

Each request takes the next reply of the script. No model is behind it, and nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from oa_localstack.installation.ports import HOST
from oa_testing.peers.listener import Listener

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 10, 4, 5
"""The usage that each reply reports."""
PATIENTLY = {"yield_time_ms": 30_000}
"""Arguments of Codex's `exec_command` with which the model waits for the command as long as it may."""


@dataclass(frozen=True)
class Say:
    """A message of the assistant, sent word by word."""

    text: str


@dataclass(frozen=True)
class Call:
    """The model calls a tool."""

    name: str
    arguments: Mapping[str, object]
    namespace: str = ""
    """The tool's namespace, if it has one: `mcp__NAME` for an MCP server."""


@dataclass(frozen=True)
class Wait:
    """A pause until the test sets `opened`; `reached` tells the test that it may, `left` that the client hung up."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Fail:
    """The provider refuses the request."""

    status: int = 400


@dataclass(frozen=True)
class Break:
    """The connection breaks; data that was sent just before may be lost with it."""


Part = Say | Call | Wait | Fail | Break


class ModelServer:
    """Use it in `async with`. `port`: that of an earlier server."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies of the requests, in order."""
        self._replies: list[Sequence[Part]] = []
        self._listener = Listener(self._answer, port=port)

    async def __aenter__(self) -> Self:
        await self._listener.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop as if its process died: a reply in progress ends in the middle, and nobody listens any more."""
        await self._listener.stop()

    @property
    def port(self) -> int:
        """The port it listens on, also after it has stopped."""
        return self._listener.port

    @property
    def base_url(self) -> str:
        """The URL for the provider's settings."""
        return f"http://{HOST}:{self.port}"

    def script(self, *replies: Sequence[Part]) -> None:
        """Add replies."""
        self._replies += replies

    def asked(self, text: str) -> bool:
        """Whether a request held this text."""
        return any(text in json.dumps(request, ensure_ascii=False) for request in self.requests)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        lengths = [line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")]
        if not head.startswith("post /responses ") or not lengths:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.requests.append(json.loads(await reader.readexactly(int(lengths[0]))))
        if not self._replies:
            raise AssertionError("the model was asked more often than the script says")
        reply = self._replies.pop(0)
        if reply and isinstance(reply[0], Fail):
            body = json.dumps({"error": {"message": "the script says no"}}).encode()
            writer.write(f"HTTP/1.1 {reply[0].status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await _tell(reader, writer, reply, f"resp_{len(self.requests)}")


async def _wait(reader: asyncio.StreamReader, wait: Wait) -> None:
    """Wait until `wait` is opened. Raises ConnectionError when the client hangs up first."""
    wait.reached.set()
    opened, hung_up = asyncio.ensure_future(wait.opened.wait()), asyncio.ensure_future(reader.read())
    try:
        await asyncio.wait({opened, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        opened.cancel()
        hung_up.cancel()
    if not wait.opened.is_set():
        wait.left.set()
        raise ConnectionError


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Sequence[Part], name: str) -> None:
    async def event(kind: str, **values: object) -> None:
        writer.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **values})}\n\n".encode())
        await writer.drain()

    await event("response.created", response={"id": name})
    for index, part in enumerate(reply):
        match part:
            case Wait():
                await _wait(reader, part)
            case Break():
                writer.transport.abort()
                return
            case Say(text=text):
                item: dict[str, object] = {"type": "message", "id": f"{name}_m{index}", "role": "assistant"}
                await event("response.output_item.added", output_index=index, item={**item, "content": []})
                for word in re.findall(r"\S+\s*|\s+", text):
                    await event("response.output_text.delta", item_id=item["id"], output_index=index, delta=word)
                whole = {**item, "content": [{"type": "output_text", "text": text}]}
                await event("response.output_item.done", output_index=index, item=whole)
            case Call(name=tool, arguments=arguments, namespace=namespace):
                called = {"type": "function_call", "id": f"{name}_f{index}", "call_id": f"{name}_c{index}"}
                called |= {"name": tool, "arguments": json.dumps(arguments)}
                called |= {"namespace": namespace} if namespace else {}
                await event("response.output_item.added", output_index=index, item=called)
                await event("response.output_item.done", output_index=index, item=called)
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    await event("response.completed", response={"id": name, "usage": usage})
