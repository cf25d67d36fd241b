"""Handshakes, tokens and frames that don't come in."""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode

from oa_khala import frames
from oa_khala.frames import Cursor, Form
from oa_khala.grants import parse_grant, write_claims
from oa_khala.wire import encode_client_frame
from oa_testing.raw_connection import raw_answer
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.control.v1.claims_pb2 import SyncTokenClaims
from services.khala_gateway.sockets.ws_door.socket import Socket
from services.khala_gateway.tests.harness import (
    ORG,
    ORIGIN,
    T2,
    USER,
    Client,
    Limits,
    Stack,
    T,
    U,
    claims_of_runs,
    running,
)

HELLO = frames.Hello("", "dev_1", "test/1")


async def http(port: int, request: str) -> tuple[int, str]:
    """The status and the whole answer to a raw request."""
    async with asyncio.timeout(PATIENCE_S):
        answer = (await raw_answer("127.0.0.1", port, request.encode())).decode()
    return (int(answer.split(" ", 2)[1]) if answer else 0), answer


UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
)
PROTO = "Sec-WebSocket-Protocol: khala.v1.proto\r\n"
OPENING = UPGRADE.format(path="/khala/v1/ws", more=PROTO)


@pytest.mark.parametrize(
    ("request_text", "status", "says"),
    [
        (UPGRADE.format(path="/", more=PROTO), 404, "not_found"),
        (UPGRADE.format(path="/khala/v1/ws/x", more=PROTO), 404, "not_found"),
        (UPGRADE.format(path="/khala/v1/ws", more=""), 400, "unsupported_protocol_version"),
        (UPGRADE.format(path="/khala/v1/ws", more="Sec-WebSocket-Protocol: khala.v2.proto\r\n"), 400, "khala.v1.proto"),
        (UPGRADE.format(path="/khala/v1/ws", more=PROTO + "Origin: https://evil.example\r\n"), 403, "origin_not"),
        (UPGRADE.format(path="/khala/v1/ws", more=PROTO + "Authorization: Basic eDp5\r\n"), 401, "invalid_auth"),
        (UPGRADE.format(path="/khala/v1/ws", more=PROTO + "Authorization: Bearer\r\n"), 401, "WWW-Authenticate: B"),
        (UPGRADE.format(path="/khala/v1/ws", more=PROTO + "Authorization: Bearer a b\r\n"), 401, "invalid_auth"),
        (UPGRADE.format(path="/khala/v1/ws", more=PROTO + "Authorization: Bearer a\r\n" * 2), 401, "invalid_auth"),
        (OPENING.replace("Upgrade: websocket\r\n", ""), 426, "\r\nUpgrade: websocket\r\n"),
        (OPENING.replace("Upgrade: websocket", "Upgrade: h2c, foo"), 426, "\r\nConnection: close, Upgrade\r\n"),
        (OPENING.replace("GET /khala/v1/ws", "GET http://x"), 404, "not_found"),
        (OPENING.replace("Connection: Upgrade", "Connection: close"), 426, "protocol_violation"),
        (OPENING.replace("Version: 13", "Version: 12"), 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (OPENING.replace("Sec-WebSocket-Version: 13\r\n", ""), 426, "Sec-WebSocket-Version: 13"),
        (OPENING.replace("Sec-WebSocket-Key", "X-Key"), 400, "Sec-WebSocket-Key"),
        (OPENING.replace("AAAA==", "AAAA"), 400, "Sec-WebSocket-Key"),
        (OPENING.replace("Host: x\r\n", ""), 400, "Host"),
        (OPENING.replace("Host: x\r\n", "Host: x\r\nHost: y\r\n"), 400, "Host"),
        (OPENING.replace("Host: x\r\n", "Host: x\r\nContent-Length: 1\r\n"), 400, "no body"),
        (OPENING.replace("Host: x\r\n", "Host: x\r\nTransfer-Encoding: chunked\r\n"), 400, "no body"),
        (OPENING.replace("Host: x\r\n", "Host: x\r\nno header\r\n"), 400, "malformed_message"),
        (OPENING.replace("HTTP/1.1", "HTTP/1.0"), 505, "protocol_violation"),
        (OPENING.replace("GET ", "POST "), 405, "\r\nAllow: GET\r\n"),
        ("\x16\x03\x01 nonsense\r\n\r\n", 400, "malformed_message"),
        ("\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c", 400, "malformed_message"),  # version 2 of the PROXY protocol
        ("GET " + "x" * 17_000, 414, "request_too_large"),
        ("GET " + "x" * 17_000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "request_too_large"),
        (OPENING.replace("Host: x\r\n", "Host: x\r\n" + "X: y\r\n" * 3_000), 431, "request_too_large"),
    ],
)
async def test_requests_that_are_not_let_in(request_text: str, status: int, says: str) -> None:
    async with running() as stack:
        got, answer = await http(stack.server.port, request_text)
        assert got == status
        assert says in answer
        assert json.loads(answer.partition("\r\n\r\n")[2])["message"]
        await eventually(lambda: not stack.server.sockets)


async def test_a_refused_head_has_no_body() -> None:
    async with running() as stack:
        status, answer = await http(stack.server.port, OPENING.replace("GET", "HEAD"))
        assert (status, answer.partition("\r\n\r\n")[2]) == (405, "")


@pytest.mark.parametrize(
    ("usual", "unusual"),
    [
        ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ("GET /khala", "GET http://x/khala"),
        ("GET /khala", "GET WSS://gateway.example:8090/khala"),
    ],
)
async def test_unusual_openings_that_the_rules_allow(usual: str, unusual: str) -> None:
    assert usual in OPENING
    async with running() as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.server.port)
        writer.write(OPENING.replace(usual, unusual).encode())
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.close()


async def test_an_origin_on_the_list_is_let_in() -> None:
    async with running() as stack:
        client = await Client.open(stack.url, origin=ORIGIN)
        await client.hello(stack.token(T))
        await client.next(frames.Welcome)


async def test_the_token_may_come_in_the_header() -> None:
    async with running() as stack:
        headers = {"Authorization": f"Bearer {stack.token(T)}"}
        client = await Client.open(stack.url, additional_headers=headers)
        before_ms = time.time() * 1000
        await client.send(HELLO)
        welcome = await client.next(frames.Welcome)
        assert welcome.connection_id.startswith("con_")
        assert before_ms - 1_000 < welcome.server_time_ms < time.time() * 1000 + 1_000


async def test_past_its_limits_the_door_is_shut_with_a_time_to_wait() -> None:
    async with running(Limits().with_admission(handshake_burst=1, handshakes_per_s=1)) as stack:
        with pytest.raises(InvalidStatus) as caught:
            await _opened(stack, 100)  # faster than one a second, on any machine
        assert caught.value.response.status_code == 429
        assert caught.value.response.headers["Retry-After"] == "1"
        assert json.loads(caught.value.response.body)["reason"] == "overloaded"
    async with running(Limits().with_admission(max_connections=1)) as stack:
        await Client.open(stack.url)
        with pytest.raises(InvalidStatus, match="429"):
            await Client.open(stack.url)


async def test_a_flood_of_one_address_is_refused_before_its_token_is_looked_at() -> None:
    limits = Limits().with_admission(handshake_burst_per_address=2, handshakes_per_s_per_address=1)
    async with running(limits.with_port(trusted=(ipaddress.ip_network("127.0.0.0/8"),))) as stack:
        flood = {"Authorization": "Bearer x.y.z", "X-Forwarded-For": "6.6.6.6, 2001:db8::1"}
        with pytest.raises(InvalidStatus) as caught:
            await _opened(stack, 100, flood)  # faster than one a second, on any machine
        assert caught.value.response.status_code == 429
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        assert json.loads(caught.value.response.body)["reason"] == "rate_limited"
        same_customer = {"X-Forwarded-For": "2001:db8::2"}
        with pytest.raises(InvalidStatus, match="429"):
            await _opened(stack, 100, same_customer)
        other = await Client.open(stack.url, additional_headers={"X-Forwarded-For": "2001:db8:0:1::1"})
        await other.hello(stack.token(T))
        await other.next(frames.Welcome)


async def test_what_a_client_claims_of_its_address_counts_only_with_our_proxies_in_front() -> None:
    async with running(Limits().with_admission(handshake_burst_per_address=1, handshakes_per_s_per_address=1)) as stack:
        with pytest.raises(InvalidStatus, match="429"):
            await _opened(stack, 100, *({"X-Forwarded-For": f"192.0.2.{number}"} for number in range(100)))


@pytest.mark.parametrize("limit", ["connections_per_session", "connections_per_principal"])
async def test_a_session_or_principal_has_so_many_connections_and_those_stay(limit: str) -> None:
    async with running(Limits().with_admission(**{limit: 2})) as stack:
        standing = [await stack.connect(T) for _ in range(2)]
        for token in (stack.token(T), stack.token(**claims_of_runs(USER))):
            refused = await Client.open(stack.url)
            await refused.hello(token)
            error = await refused.next(frames.ErrorFrame)
            assert (error.reason, error.retry_after_ms) == ("rate_limited", 5_000)
            assert await refused.close_code() == ("", 4429)
        for client in standing:
            await client.send(frames.RefreshToken(stack.token(T)))
            await client.follow(T)
        await standing[0].socket.close()
        await eventually(lambda: len(stack.server.sockets) == 1)
        await (await stack.connect(T)).follow(T)


async def test_an_org_leaves_a_place_for_another_and_is_told_so() -> None:
    async with running(Limits().with_admission(max_connections=9)) as stack:
        standing = [await stack.connect(T, org_id=ORG) for _ in range(8)]
        refused = await Client.open(stack.url)
        await refused.hello(stack.token(T, org_id=ORG))
        error = await refused.next(frames.ErrorFrame)
        assert (error.reason, error.retry_after_ms) == ("overloaded", 1_000)
        assert await refused.close_code() == ("", 1013)
        for client in (*standing, await stack.connect(T, org_id="org_of_others")):
            await client.follow(T)


async def test_who_holds_connections_and_asks_for_nothing_takes_no_room_and_has_few() -> None:
    limits = Limits().with_admission(max_connections=1, waiting_per_address=2)
    async with running(limits.with_socket(handshake_deadline_ms=600_000)) as stack:
        held = [await asyncio.open_connection("127.0.0.1", stack.server.port) for _ in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                assert await held[2][0].read() == b"", "one too many is closed at once"
        await eventually(lambda: len(stack.server.sockets) == 2)
        held[1][1].close()
        await eventually(lambda: len(stack.server.sockets) == 1)
        client = await Client.open(stack.url)
        await client.hello(stack.token(T))
        await client.next(frames.Welcome)
        for _, writer in held:
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()


async def test_those_who_ask_for_nothing_are_counted_by_network() -> None:
    """An IPv6 /64 is what one customer has."""
    async with running(Limits().with_admission(waiting_per_address=2)) as stack:
        came = [_socket_from(stack, f"2001:db8::{number}") for number in range(3)]
        other = _socket_from(stack, "2001:db8:0:1::1")
        assert [stack.server.arrived(socket) for socket in (*came, other)] == [True, True, False, True]
        stack.server.gone(came[0])
        assert stack.server.arrived(came[2])
        for socket in (*came, other):
            stack.server.gone(socket)
        assert len(stack.server._admission._waiting) == 0


def _socket_from(stack: Stack, peer: str) -> Socket:
    socket = Socket(stack.server, stack.limits.port.socket)
    socket.peer = peer
    return socket


async def test_an_address_has_so_many_connections_and_they_are_counted_when_they_go() -> None:
    async with running(Limits().with_admission(connections_per_address=1)) as stack:
        first = await Client.open(stack.url)
        with pytest.raises(InvalidStatus, match="429"):
            await Client.open(stack.url)
        await first.socket.close()
        await eventually(lambda: not stack.server.sockets)
        await Client.open(stack.url)


async def _opened(stack: Stack, count: int, *headers: dict[str, str]) -> None:
    for number in range(count):
        await Client.open(stack.url, additional_headers=headers[number % len(headers)] if headers else None)


async def test_who_never_asks_is_cut_off() -> None:
    async with running(Limits().with_socket(handshake_deadline_ms=100)) as stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.server.port)
        writer.write(b"GET /khala/v1/ws HTTP/1.1\r\n")
        await eventually(lambda: not stack.server.sockets)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_hello_has_a_deadline() -> None:
    async with running(Limits().with_session(hello_deadline_ms=100)) as stack:
        client = await Client.open(stack.url)
        assert await client.close_code() == ("hello_timeout", 4408)


async def test_silence_has_a_deadline_and_a_websocket_ping_ends_it() -> None:
    async with running(Limits().with_session(idle_timeout_ms=3_000, heartbeat_interval_ms=500)) as stack:
        client, silent = await stack.connect(T), await stack.connect(T)
        reading = asyncio.create_task(client.close_code())
        for _ in range(16):  # for longer than the deadline, and each pause is a small part of it
            await asyncio.sleep(0.2)
            _ = await client.socket.ping()
        assert not reading.done()
        assert await silent.close_code() == ("idle_timeout", 4009)
        assert await reading == ("idle_timeout", 4009)


@pytest.mark.parametrize(
    ("claims", "reason", "code"),
    [
        ({"aud": "openagents-edge"}, "invalid_token", 4401),
        ({"iss": "somebody"}, "invalid_token", 4401),
        ({"ttl": -60}, "token_expired", 4401),
        ({"ttl": -1}, "token_expired", 4401),  # within the leeway for clocks
        ({"ttl": 24 * 3600}, "invalid_token", 4401),
        ({"claims_version": 3}, "invalid_token", 4401),
        ({"device_id": "dev_2"}, "invalid_token", 4401),
    ],
)
async def test_tokens_that_do_not_do(claims: dict[str, object], reason: str, code: int) -> None:
    async with running() as stack:
        client = await Client.open(stack.url)
        await client.hello(stack.token(T, **claims))
        assert await client.close_code() == (reason, code)


@pytest.mark.parametrize(("token", "reason"), [("", "missing_authorization"), ("x.y.z", "invalid_token")])
async def test_no_token_and_nonsense(token: str, reason: str) -> None:
    async with running() as stack:
        client = await Client.open(stack.url)
        await client.hello(token)
        assert await client.close_code() == (reason, 4401)


@pytest.mark.parametrize(
    ("topic", "claims", "reason"),
    [
        (T2, {}, "forbidden_topic"),
        ("run:1:events", {}, "invalid_topic"),
        ("", {}, "invalid_topic"),
        ("x" * 10_000, {}, "invalid_topic"),
        (T, {"sub": "usr_other"}, "owner_mismatch"),
        (T, {"scopes": ["runs.write"]}, "missing_scope"),
    ],
)
async def test_topics_that_are_not_admitted(topic: str, claims: dict[str, Any], reason: str) -> None:
    async with running() as stack:
        client = await stack.connect(T, **claims)
        await client.subscribe(topic)
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason) == (topic[:160], reason)
        assert not topic or topic not in error.message
        await client.send(frames.Ping(1))
        assert (await client.next(frames.Heartbeat)).nonce == 1, "the connection lives on"


async def test_the_org_of_a_run_may_read_it() -> None:
    async with running() as stack:
        stack.runtime.logs[T].owner_org_id = "org_1"
        client = await stack.connect(T, sub="usr_other", org_id="org_1")
        await client.follow(T)


async def test_one_connection_follows_128_runs_by_one_token_and_one_that_was_created_after_it() -> None:
    def created(stack: Stack, number: int) -> str:
        topic = f"run:run_01J9ZQ6T5W3M8K2N4P7R1S0{number:03}:events"
        stack.runtime.create(topic, "usr_colleague", 2).owner_org_id = ORG
        return topic

    async with running() as stack:
        topics = [created(stack, number) for number in range(127)]
        client = await stack.connect(**claims_of_runs(ORG))
        topics.append(created(stack, 127))
        await client.send(frames.Subscribe(tuple((topic, None) for topic in topics)))
        for topic in topics:
            stack.runtime.append(topic)
        for topic in topics:
            await client.up_to(topic, 3)
        assert client.seqs == {topic: [1, 2, 3] for topic in topics}


async def test_of_an_owners_runs_one_of_somebody_else_is_refused_like_one_that_is_not_there() -> None:
    async with running() as stack:
        stack.runtime.logs[T].owner_org_id = "org_other"
        client = await stack.connect(**claims_of_runs(ORG, USER))
        refusals = []
        for topic in (T, T2):
            await client.subscribe(topic)
            refusals.append(await client.next(frames.ErrorFrame))
        not_yours, not_there = refusals
        assert not_yours.reason == "forbidden_topic", "its subject's run, in another org"
        assert not_there == replace(not_yours, topic=T2)


async def test_128_topics_are_named_by_one_token_in_the_header_in_hello_and_in_a_refresh() -> None:
    ids = [f"run_01J9ZQ6T5W3M8K2N4P7R1S0{number:03}" for number in range(128)]
    texts = [f"run:{one}:events" for one in ids]
    claimed = write_claims([parse_grant(text) for text in texts])
    grants = [SyncTokenClaims.TopicGrant(form=form, ids=ids) for form, ids in claimed.ids.items()]
    claims: dict[str, Any] = {"claims_version": claimed.version, "grants": grants}
    async with running() as stack:
        for text in texts:
            stack.runtime.create(text, USER, 1)
        header = {"Authorization": f"Bearer {stack.token(**claims)}"}
        in_header = await Client.open(stack.url, additional_headers=header)
        await in_header.hello("")
        await in_header.next(frames.Welcome)
        in_hello = await stack.connect(**claims)
        refreshed = await stack.connect(T)
        await refreshed.send(frames.RefreshToken(stack.token(**claims)))
        for client in (in_header, in_hello, refreshed):
            await client.send(frames.Subscribe(tuple((text, None) for text in texts)))
            for text in texts:
                await client.up_to(text, 1)


async def test_expiry_ends_the_connection_and_a_refresh_puts_it_off() -> None:
    async with running() as stack:
        refreshed, brief = await stack.connect(T, ttl=10), await stack.connect(T, ttl=10)
        await refreshed.send(frames.RefreshToken(stack.token(T, U)))
        assert await brief.close_code() == ("reauth_required", 4401)
        await refreshed.follow(U)


async def test_a_refresh_with_a_bad_or_foreign_token_ends_the_connection() -> None:
    async with running() as stack:
        others = ({"session_id": "ses_2"}, {"sub": "usr_other"}, {"org_id": "org_other"})
        for token in ("x.y.z", *(stack.token(T, **other) for other in others)):
            client = await stack.connect(T)
            await client.send(frames.RefreshToken(token))
            assert await client.close_code() == ("invalid_token", 4401)


async def test_a_second_connection_with_the_same_token_ends_the_first() -> None:
    async with running() as stack:
        token = stack.token(T)
        first, second = await Client.open(stack.url), await Client.open(stack.url)
        await first.hello(token)
        await first.next(frames.Welcome)
        await second.hello(token)
        assert await first.close_code() == ("token_replayed", 4401)
        await second.next(frames.Welcome)
        await second.follow(T)


PING = encode_client_frame(frames.Ping(1), Form.PROTO)


@pytest.mark.parametrize(
    ("message", "reason", "code"),
    [
        (b"\xff\xff", "malformed_message", 4400),
        (b"", "missing_payload", 4400),
        ("{}", "protocol_violation", 4400),
        (encode_client_frame(HELLO, Form.PROTO), "protocol_violation", 4400),
        (b"\x00" * 65_537, "", 1009),
        ([b"\x00" * 40_000] * 2, "", 1009),
    ],
)
async def test_messages_that_are_no_frames(message: str | bytes | list[bytes], reason: str, code: int) -> None:
    async with running() as stack:
        client = await stack.connect(T)
        await client.socket.send(message)
        assert await client.close_code() == (reason, code)
        await eventually(lambda: not stack.server.sockets)


@pytest.mark.parametrize("message", [b'{"ping":{}}', "nonsense", '{"ping":{"nonce":1},"x":1}', "[]"])
async def test_json_that_is_no_frame(message: str | bytes) -> None:
    async with running() as stack:
        client = await stack.connect(T, form=Form.JSON)
        await client.socket.send(message)
        reason, code = await client.close_code()
        assert reason == ("protocol_violation" if isinstance(message, bytes) else "malformed_message")
        assert code == 4400


async def test_text_that_is_not_utf8_is_closed_as_rfc_6455_has_it() -> None:
    async with running() as stack:
        client = await stack.connect(T, form=Form.JSON)
        await client.socket.send(b"\xff\xff", text=True)
        assert await client.close_code() == ("", 1007)


async def test_a_fragmented_message_is_one_message() -> None:
    async with running() as stack:
        client = await stack.connect(T)
        await client.socket.send([PING[:1], PING[1:]])
        assert (await client.next(frames.Heartbeat)).nonce == 1


async def test_a_close_between_the_fragments_of_a_message_is_answered_as_any_other() -> None:
    async with running() as stack:
        client = await stack.connect(T)
        fragment = Frame(Opcode.BINARY, PING[:1], fin=False)
        close = Frame(Opcode.CLOSE, Close(1000, "").serialize())
        client.socket.transport.write(fragment.serialize(mask=True) + close.serialize(mask=True))
        await client.socket.wait_closed()
        assert client.socket.protocol.close_rcvd == Close(1000, "")


async def test_frames_may_come_right_behind_hello() -> None:
    async with running() as stack:
        client = await Client.open(stack.url)
        await client.hello(stack.token(T))
        await client.subscribe(T)
        await client.next(frames.Welcome)
        await client.next(frames.Subscribed)
        await client.next(frames.CaughtUp)


async def test_a_clean_close_is_answered() -> None:
    async with running() as stack:
        client = await stack.connect(T)
        await client.follow(T)
        await client.socket.close(1000, "done")
        assert client.socket.close_code == 1000
        await eventually(lambda: not stack.server.sockets)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[bytes]]:
    """What sockets write with one system call each."""
    written: list[Sequence[bytes]] = []
    write, write_all = Socket.write, Socket.write_all

    def count(socket: Socket, data: bytes) -> None:
        written.append([data])
        write(socket, data)

    def count_all(socket: Socket, messages: Sequence[bytes]) -> None:
        written.append(messages)
        write_all(socket, messages)

    monkeypatch.setattr(Socket, "write", count)
    monkeypatch.setattr(Socket, "write_all", count_all)
    return written


async def test_what_one_frame_is_answered_leaves_in_one_write_and_in_order(written: list[Sequence[bytes]]) -> None:
    async with running(Limits().with_session(heartbeat_interval_ms=3_600_000)) as stack:
        client = await stack.connect(T, U)
        stands = [(topic, await client.follow(topic)) for topic in (T, U)]
        written.clear()
        await client.send(frames.Subscribe(tuple((topic, Cursor(at.epoch, at.head)) for topic, at in stands)))
        for topic in (T, U):
            assert (await client.next(frames.Subscribed)).topic == topic
            assert (await client.next(frames.CaughtUp)).topic == topic
        assert len(written) == 1


async def test_what_another_client_has_just_read_leaves_with_the_answer(written: list[Sequence[bytes]]) -> None:
    async with running(Limits().with_session(heartbeat_interval_ms=3_600_000)) as stack:
        first, second = await stack.connect(T), await stack.connect(T)
        stands = await first.follow(T)
        behind = Cursor(stands.epoch, stands.head - 3)
        await first.follow(T, behind)
        written.clear()
        await second.follow(T, behind)
        assert second.seqs[T] == [stands.head - 2, stands.head - 1, stands.head]
        assert len(written) == 1


async def test_a_page_of_history_leaves_with_what_follows_from_it(written: list[Sequence[bytes]]) -> None:
    async with running(Limits().with_session(heartbeat_interval_ms=3_600_000)) as stack:
        client = await stack.connect(T)
        stands = await client.follow(T)
        written.clear()
        await client.follow(T, Cursor(stands.epoch, stands.head - 3))
        assert [len(together) for together in written] == [1, 2], "SUBSCRIBED, then the page with CAUGHT_UP"
