"""The way to a site: straight on this machine, through the proxy that was set elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
import websockets.asyncio.server as ws_server
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from oa_base.refusal import Refusal
from oa_client.cpython import network
from oa_client.cpython.addresses import in_turns
from oa_client.cpython.network import HttpxHttp, WebSockets
from oa_client.follow.tests.fake_gateway import FakeGateway
from oa_client.transport import SocketClosed
from oa_khala.frames import Form
from oa_testing.peers.authority import Authority, server_context
from oa_testing.peers.forward_proxy import ForwardProxy
from oa_testing.peers.listener import Listener
from oa_testing.waiting import PATIENCE_S
from oa_worker.tests.fake_edge import edge

Run = Callable[[Coroutine[Any, Any, None]], None]
ON_EVERY_LOOP = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
DEAD = "http://user:secret@127.0.0.1:9"


async def test_loopback_is_reached_past_every_proxy(dead_proxies: dict[str, str]) -> None:
    async with FakeGateway({}).running() as gateway, HttpxHttp(DEAD) as http:
        with edge(200, b"yes") as (url, _):
            assert (await http.post(url, b"", {})).body == b"yes"
        await (await WebSockets(DEAD).open(gateway.url, Form.PROTO.value)).close()


async def test_a_site_elsewhere_is_reached_through_the_proxy_that_was_set(dead_proxies: dict[str, str]) -> None:
    async with (
        ForwardProxy().running() as proxy,
        FakeGateway({}).running() as gateway,
        HttpxHttp(proxy.url) as http,
    ):
        with edge(200, b"yes") as (url, _):
            assert (await http.post(url.replace("127.0.0.1", "site.example"), b"", {})).body == b"yes"
        khala = gateway.url.replace("127.0.0.1", "site.example")
        await (await WebSockets(proxy.url).open(khala, Form.PROTO.value)).close()
    assert [each.split("/khala")[0].rpartition(":")[0] for each in proxy.asked] == [
        "POST http://site.example",
        "CONNECT site.example",
    ]


@pytest.mark.parametrize(
    ("proxy", "said"),
    [(DEAD, "through the proxy http://127.0.0.1:9 (OA_PROXY)"), ("", "without a proxy (https_proxy is not used")],
)
async def test_an_error_names_the_proxy_and_not_its_password(
    dead_proxies: dict[str, str], proxy: str, said: str
) -> None:
    async with HttpxHttp(proxy) as http:
        with pytest.raises(Refusal) as refused:
            await http.post("http://site.invalid:8080", b"", {})
    with pytest.raises(SocketClosed) as closed:
        await WebSockets(proxy).open("ws://site.invalid:8090/khala/v1/ws", Form.PROTO.value)
    for message in (refused.value.message, str(closed.value)):
        assert said in message
        assert "secret" not in message


async def test_a_site_that_goes_on_sending_bytes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "HTTP_CALL_TIMEOUT_S", 0.5)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with Listener(drip) as server, HttpxHttp() as http, asyncio.timeout(PATIENCE_S):
        url = f"http://127.0.0.1:{server.port}"
        with pytest.raises(Refusal, match=f"{url} did not complete its answer within 0.5 s") as refused:
            await http.get(url)
    assert refused.value.reason == "deadline_exceeded"


AUTHORITY, FOREIGN = Authority(), Authority("Another authority")


async def test_an_error_does_not_show_the_password_of_a_url() -> None:
    async with HttpxHttp() as http:
        with pytest.raises(Refusal, match=r"http://127.0.0.1:9 can't be reached") as refused:
            await http.post("http://user:geheim@127.0.0.1:9/x", b"", {})
    with pytest.raises(SocketClosed, match=r"ws://127.0.0.1:9/khala can't be opened") as closed:
        await WebSockets().open("ws://user:geheim@127.0.0.1:9/khala", Form.PROTO.value)
    assert "geheim" not in f"{refused.value} {closed.value}"


async def test_a_site_with_an_authority_of_its_own(tmp_path: Path) -> None:
    tls, ca_file = server_context(tmp_path, AUTHORITY.issue()), AUTHORITY.write(tmp_path)
    async with FakeGateway({}).running(tls) as gateway, HttpxHttp(ca_file=ca_file) as http:
        with edge(200, b"yes", tls=tls) as (url, _):
            assert (await http.post(url, b"", {})).body == b"yes"
        await (await WebSockets(ca_file=ca_file).open(gateway.url, Form.PROTO.value)).close()


@pytest.mark.parametrize(
    ("names", "trusts", "advised"),
    [
        pytest.param((), None, True, id="no authority of ours"),
        pytest.param((), FOREIGN, True, id="another authority"),
        pytest.param(("site.test",), AUTHORITY, False, id="another name"),
    ],
)
async def test_a_site_that_is_not_trusted_is_told_nothing(
    tmp_path: Path, names: tuple[str, ...], trusts: Authority | None, advised: bool
) -> None:
    tls = server_context(tmp_path, AUTHORITY.issue(*names))
    ca_file = trusts.write(tmp_path) if trusts else None
    async with FakeGateway({}).running(tls) as gateway, HttpxHttp(ca_file=ca_file) as http:
        with edge(200, b"yes", tls=tls) as (url, seen):
            with pytest.raises(Refusal, match="CERTIFICATE_VERIFY_FAILED") as refused:
                await http.post(url, b"secret", {})
            assert refused.value.reason == "unavailable"
            assert seen == []
        with pytest.raises(SocketClosed, match="CERTIFICATE_VERIFY_FAILED") as closed:
            await WebSockets(ca_file=ca_file).open(gateway.url, Form.PROTO.value)
    for said in (refused.value.message, str(closed.value)):
        assert ("set OA_CA_FILE" in said) == advised


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_of_authorities_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.crt"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(Refusal, match="can't be used") as refused:
        HttpxHttp(ca_file=ca_file)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_CA_FILE")


@pytest.mark.parametrize(("said", "reason"), [("slow_consumer", "slow_consumer"), ("bye", ""), ("", "")])
async def test_the_reason_in_a_close_frame_is_told_if_it_is_one(said: str, reason: str) -> None:
    async def close(connection: ws_server.ServerConnection) -> None:
        await connection.close(4008, said)

    protocol = Form.PROTO.value
    async with ws_server.serve(close, "127.0.0.1", 0, subprotocols=[Subprotocol(protocol)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        socket = await WebSockets().open(f"ws://127.0.0.1:{port}", protocol)
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert (closed.value.reason, closed.value.code) == (reason, 4008)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_socket_does_not_follow_a_redirect(status: int) -> None:
    """It would give the token of the session to whatever host a proxy names."""
    asked: list[bytes] = []

    async def lead_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        location = f"Location: ws://127.0.0.1:{elsewhere.port}/khala/v1/ws".encode()
        writer.write(b"HTTP/1.1 %d Moved\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, location))

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))

    async with Listener(listen) as elsewhere, Listener(lead_away) as server, asyncio.timeout(PATIENCE_S):
        with pytest.raises(SocketClosed, match=f"redirect .HTTP {status}.*give the address it leads to") as closed:
            await WebSockets().open(f"ws://127.0.0.1:{server.port}/khala/v1/ws", Form.PROTO.value)
    assert (closed.value.reason, len(asked)) == ("internal", 1)


def _resolve_to(*addresses: tuple[str, int]) -> None:
    """Let every name of a host stand for these addresses, in the running loop."""

    async def resolved(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        found = [address for address in addresses if address[0] == host] or addresses
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    asyncio.get_running_loop().getaddrinfo = resolved  # type: ignore[method-assign,assignment]


@ON_EVERY_LOOP
def test_a_dead_address_of_a_host_does_not_keep_from_the_next_one(run: Run) -> None:
    run(_past_a_dead_address())


async def _past_a_dead_address() -> None:
    with socket.socket() as dead, contextlib.ExitStack() as waiting:
        dead.bind(("127.0.0.2", 0))
        dead.listen(0)
        for _ in range(2):  # with nobody who accepts, the kernel answers no further attempt
            attempt = waiting.enter_context(socket.socket())
            attempt.setblocking(False)
            attempt.connect_ex(dead.getsockname())
        async with FakeGateway({}).running() as gateway:
            _resolve_to(dead.getsockname(), ("127.0.0.1", urlsplit(gateway.url).port or 0))
            await (await WebSockets().open("ws://khala.example/khala/v1/ws", Form.PROTO.value)).close()


@ON_EVERY_LOOP
def test_a_host_of_which_no_address_answers_is_away(run: Run, unused_tcp_port: int) -> None:
    async def opened() -> None:
        _resolve_to(("127.0.0.2", unused_tcp_port), ("127.0.0.3", unused_tcp_port))
        with pytest.raises(SocketClosed, match=r"127\.0\.0\.2:.*refused.*127\.0\.0\.3:.*refused"):
            await WebSockets().open("ws://khala.example/khala/v1/ws", Form.PROTO.value)

    run(opened())


@pytest.mark.parametrize(("compress", "agreed"), [(True, 1), (False, 0)])
async def test_compression_is_offered_when_it_is_wanted_and_keeps_no_context(compress: bool, agreed: int) -> None:
    seen: list[str] = []

    async def serve(connection: ws_server.ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("Sec-WebSocket-Extensions", ""))
        await connection.send(b"payload " * 1_000)
        await connection.wait_closed()

    protocol = Form.PROTO.value
    async with ws_server.serve(serve, "127.0.0.1", 0, subprotocols=[Subprotocol(protocol)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        socket = await WebSockets(compress=compress).open(f"ws://127.0.0.1:{port}", protocol)
        assert await socket.receive() == b"payload " * 1_000
        await socket.close()
    [offer] = seen
    assert offer.count("permessage-deflate") == agreed
    assert offer.count("no_context_takeover") == 2 * agreed


async def test_a_farewell_that_is_given_up_ends_the_connection() -> None:
    ended = asyncio.Event()

    async def answer_nothing_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        [key] = [line.split(": ")[1] for line in request.splitlines() if line.startswith("Sec-WebSocket-Key: ")]
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade"
        chosen = f"Sec-WebSocket-Accept: {accept_key(key)}\r\nSec-WebSocket-Protocol: {Form.PROTO.value}"
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n{chosen}\r\n\r\n".encode())
        while await reader.read(1_000):
            said.set()
        ended.set()

    said = asyncio.Event()
    async with Listener(answer_nothing_more) as server, asyncio.timeout(PATIENCE_S):
        socket = await WebSockets().open(f"ws://127.0.0.1:{server.port}", Form.PROTO.value)
        closing = asyncio.create_task(socket.close())
        await said.wait()
        closing.cancel()
        await ended.wait()


_IN_THREE_LOOPS = """
import asyncio, sys
from oa_client.cpython.network import HttpxHttp
http = HttpxHttp()
async def call():
    return (await http.post(sys.argv[1], b"", {})).body.decode()
print(*[asyncio.run(call()) for _ in range(3)])
asyncio.run(http.close())
"""


def test_the_loop_after_one_that_was_closed_has_connections_of_its_own() -> None:
    """In a process of its own: in this one, a loop must not be closed before its connections."""
    with edge(200, b"yes", keeps_connections=True) as (url, seen):
        assert _output(_IN_THREE_LOOPS, url) == "yes yes yes\n"
    assert len(seen) == 3


def _output(program: str, url: str) -> str:
    """What a program says that is given `url`; it may complain of nothing."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", program, url]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    return done.stdout


def test_another_loop_is_told_to_have_a_client_of_its_own() -> None:
    http = HttpxHttp()
    with edge(200, b"yes", keeps_connections=True) as (url, _), asyncio.Runner() as first:
        assert first.run(http.post(url, b"", {})).body == b"yes"
        with asyncio.Runner() as second:
            for call in (http.post(url, b"", {}), http.close()):
                with pytest.raises(RuntimeError, match="make a client in each loop"):
                    second.run(call)
        assert first.run(http.post(url, b"", {})).body == b"yes"
        first.run(http.close())


_FORKS = """
import asyncio, os, sys
from oa_client.cpython.network import HttpxHttp
url, http = sys.argv[1], HttpxHttp()
with asyncio.Runner() as runner:
    assert runner.run(http.post(url, b"", {})).body == b"yes"
    child = os.fork()
    if not child:
        assert asyncio.new_event_loop().run_until_complete(http.post(url, b"", {})).body == b"yes"
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runner.run(http.post(url, b"", {})).body == b"yes"
    runner.run(http.close())
print("yes")
"""


def test_a_forked_process_has_connections_of_its_own() -> None:
    """Even one that a running loop forks: nothing tells that the parent's loop does not run in the child.

    In a program of its own: other tests leave threads of gRPC in this one, which is no process to fork.
    """
    with edge(200, b"yes", keeps_connections=True) as (url, _):
        assert _output(_FORKS, url) == "yes\n"


async def test_a_client_that_is_closed_says_so() -> None:
    http = HttpxHttp()
    await http.close()
    with pytest.raises(RuntimeError, match="closed; make another one"):
        await http.get("http://127.0.0.1:9")
    await http.close()


def test_the_families_of_a_hosts_addresses_are_tried_in_turns() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, "a"), (six, "b"), (six, "c"), (four, "d")]
    assert in_turns(found) == [(six, "a"), (four, "d"), (six, "b"), (six, "c")]
