"""What reaches the legacy side of a request, and what is the client's fault and not that side's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from oa_base.refusal import Refusal
from oa_testing.peers.listener import Listener
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.control.routes.domain.groups import Group, Groups, Side
from services.control.routes.door.front import Front
from services.control.routes.door.legacy import Legacy
from services.control.routes.limits import CHUNKS_PER_TURN, LegacyLimits
from services.control.tests.harness import Control, raw, running_control
from services.control.tests.web import legacy_process

LIMITS = LegacyLimits(
    max_requests=9, max_requests_of_network=9, max_body_bytes=1024, connect_timeout_s=60, idle_timeout_s=60
)


@asynccontextmanager
async def with_legacy(database: Database, tmp_path: Path) -> AsyncIterator[Control]:
    async with (
        legacy_process() as url,
        running_control(database, tmp_path, with_runtime=False, OA_LEGACY_URL=url) as control,
    ):
        yield control


async def echo(control: Control, head: str, body: bytes = b"") -> dict[str, Any]:
    """What the legacy side got of a request with these lines."""
    lines = f"{head}\r\nconnection: close\r\n\r\n".encode("latin-1")
    answer = await raw(control, lines + body)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    said: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return said


async def test_a_client_does_not_take_away_what_is_for_everybody(control_database: Database, tmp_path: Path) -> None:
    async with with_legacy(control_database, tmp_path) as control:
        named = "connection: Host, content-length, Authorization, x-mine\r\nx-mine: 1"
        head = f"POST /echo HTTP/1.1\r\nhost: app.example\r\nauthorization: Basic YQ==\r\ncontent-length: 4\r\n{named}"
        said = await echo(control, head, b"body")
        assert (said["body"], said["headers"]["host"]) == ("body", "app.example")
        assert (said["headers"]["content-length"], said["headers"]["authorization"]) == ("4", "Basic YQ==")
        assert "x-mine" not in said["headers"]


async def test_an_upgrade_does_not_reach_the_legacy_side(control_database: Database, tmp_path: Path) -> None:
    async with with_legacy(control_database, tmp_path) as control:
        upgrade = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"
        head = f"POST /echo HTTP/1.1\r\nhost: x\r\n{upgrade}\r\ncontent-length: 5"
        said = await echo(control, head, b"12345")
        assert said["body"] == "12345"
        assert not {"upgrade", "http2-settings"} & set(said["headers"])


async def test_a_value_need_not_be_ascii_and_an_address_has_to(control_database: Database, tmp_path: Path) -> None:
    async with with_legacy(control_database, tmp_path) as control:
        said = await echo(control, "GET /echo HTTP/1.1\r\nhost: x\r\nx-name: J\u00fcrgen\r\ncookie: a=\u00fc")
        assert (said["headers"]["x-name"], said["headers"]["cookie"]) == ("J\u00fcrgen", "a=\u00fc")
        for line in (b"GET /echo?a=\xff HTTP/1.1", b"OPTIONS * HTTP/1.1"):
            answer = await raw(control, line + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            assert b"HTTP/1.1" not in answer[8:]


# ------------------------------------------------------------------------------------------------- whose fault


class Taken(NamedTuple):
    """One measurement of a canary."""

    side: Side
    status: int


def web_request(method: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """The ASGI scope of a request for /echo."""
    return {
        "type": "http",
        "method": method,
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "headers": list(headers),
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "state": {},
    }


async def measured(idle_timeout_s: float, *chunks: bytes | None) -> tuple[str, list[Taken]]:
    """The reason for which a body of 5 declared bytes was refused, and what the canaries took. None never comes."""
    taken: list[Taken] = []
    parts = list(chunks)

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        if part is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def shell(*_: object) -> None:
        raise AssertionError("this goes to the legacy side")

    canaries = SimpleNamespace(take=lambda _group, side, status, _took_ms: taken.append(Taken(side, status)))
    book = SimpleNamespace(decided=SimpleNamespace(groups=Groups((Group("all", ("/",), None, 0),))))
    page = cast("Any", SimpleNamespace(keeps=lambda _path: False, __call__=shell))
    limits = LegacyLimits(**(vars(LIMITS) | {"idle_timeout_s": idle_timeout_s}))
    async with legacy_process() as url, Legacy(url, limits, ()) as legacy:
        front = Front(cast("Any", book), cast("Any", canaries), page, legacy)
        with pytest.raises(Refusal) as refused:
            await front(web_request("POST", (b"host", b"x"), (b"content-length", b"5")), receive, send)
    return refused.value.reason, taken


async def test_a_body_of_another_length_is_no_failure_of_ours_or_of_the_legacy_side() -> None:
    for chunks in ([b"123"], [b""], [b"1234", b"56"]):
        assert await measured(60, *chunks) == ("malformed_message", [Taken(Side.LEGACY, 400)])


async def test_a_client_that_is_slow_does_not_count_for_a_canary() -> None:
    assert await measured(0.05, b"12", None) == ("deadline_exceeded", [])


# ------------------------------------------------------------------------------------------------- a bad legacy side


async def answers(idle_timeout_s: float, said: bytes, *methods: str, endless: bytes = b"") -> list[bytes]:
    """The bodies of the answers to requests, one after the other, to a server that answers each with `said`, and then
    `endless` again and again, a moment apart."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(said)
                while endless:
                    writer.write(endless)
                    await writer.drain()
                    await asyncio.sleep(idle_timeout_s / 10)

    async def receive() -> Any:
        await asyncio.Event().wait()

    bodies = []
    limits = LegacyLimits(**(vars(LIMITS) | {"idle_timeout_s": idle_timeout_s}))
    async with Listener(serve) as server, Legacy(f"http://127.0.0.1:{server.port}", limits, ()) as legacy:
        for method in methods:
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await legacy(web_request(method, (b"host", b"x")), receive, send)
            bodies.append(b"".join(message.get("body", b"") for message in sent))
    return bodies


FOREIGN_ANSWER = b"HTTP/1.1 200 OK\r\nset-cookie: session=1\r\ncontent-length: 6\r\n\r\nfor me"


async def test_what_follows_an_answer_is_not_the_answer_to_the_next_person() -> None:
    longer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + FOREIGN_ANSWER
    assert await answers(60, longer, "GET", "GET", "GET") == [b"ok", b"ok", b"ok"]
    body_of_head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(FOREIGN_ANSWER) + FOREIGN_ANSWER
    assert await answers(60, body_of_head, "HEAD", "GET") == [b"", FOREIGN_ANSWER]


@pytest.mark.parametrize("endless", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"x"], ids=["interim answers", "a head"])
async def test_an_answer_whose_head_never_ends_is_given_up(endless: bytes) -> None:
    said = b"HTTP/1.1 200 OK\r\nx-long: " if endless == b"x" else b""
    with pytest.raises(Refusal) as refused:
        async with asyncio.timeout(PATIENCE_S):
            await answers(0.5, said, "GET", endless=endless)
    assert refused.value.reason == "deadline_exceeded"


async def test_an_answer_in_chunks_of_a_byte_lets_others_have_their_turn() -> None:
    """Thousands of chunks lie in one read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n")
        await writer.drain()

    async def receive() -> Any:
        await asyncio.Event().wait()

    passed_on = 0

    async def send(message: Any) -> None:
        nonlocal passed_on
        passed_on += len(message.get("body", b""))

    most = 0

    async def others() -> None:
        nonlocal most
        while True:
            before = passed_on
            await asyncio.sleep(0)
            most = max(most, passed_on - before)

    watching = asyncio.create_task(others())
    async with Listener(serve) as server, Legacy(f"http://127.0.0.1:{server.port}", LIMITS, ()) as legacy:
        await legacy(web_request("GET", (b"host", b"x")), receive, send)
    watching.cancel()
    assert passed_on == 5_000
    assert most <= CHUNKS_PER_TURN
