"""Real handshakes over real sockets: who gets through, who doesn't, and what a renewed certificate does to calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.keys import generate_key, to_jwks
from oa_platform.config.parsers import Address, Secret
from oa_platform.config.shared import EdgeTlsSettings, JwksSettings, TlsSettings
from oa_platform.http.protocol import BoundedHttpProtocol
from oa_platform.http.server import HttpServer
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.renewed import RenewedChannel
from oa_platform.rpc.server import GrpcServer
from oa_platform.system.clock import SystemClock
from oa_platform.tests.grpc_sample import CLIENT, LOOPBACK, SERVER, Echo, EchoStub, Request, add_echo, refused
from oa_platform.tests.tls_calls import ask, calling, serving
from oa_platform.tls.protection import PLAIN, Protection, edge_protection, service_protection
from oa_testing.peers.authority import Authority, Issued
from oa_testing.plain_http import plain_http
from oa_testing.waiting import PATIENCE_S, eventually

AUTHORITY, FOREIGN = Authority(), Authority("Another authority")
NEVER_MS = 3_600_000


class Side:
    """One of two processes: its files, and its protection while entered."""

    def __init__(self, folder: Path, issued: Issued, trusts: Authority = AUTHORITY) -> None:
        folder.mkdir()
        self.folder = folder
        cert_file, key_file = issued.write(folder)
        ca_file = trusts.write(folder)
        self.settings = TlsSettings(
            cert_file=cert_file, key_file=key_file, ca_file=ca_file, reload_interval_ms=NEVER_MS
        )

    @asynccontextmanager
    async def protected(self) -> AsyncIterator[Protection]:
        """Its protection."""
        async with service_protection(self.settings, SystemClock()) as protection:
            yield protection


@asynccontextmanager
async def pair_of_sides(
    folder: Path, *, server: Issued, client: Issued, trusts: Authority = AUTHORITY
) -> AsyncIterator[tuple[Echo, int, Protection, Protection]]:
    """A server, its port, and what the server and a client have."""
    sides = Side(folder / "server", server), Side(folder / "client", client, trusts)
    async with sides[0].protected() as ours, sides[1].protected() as theirs, serving(ours) as (echo, port):
        yield echo, port, ours, theirs


async def test_two_services_with_certificates_of_one_authority(tmp_path: Path) -> None:
    async with (
        pair_of_sides(tmp_path, server=AUTHORITY.issue(), client=AUTHORITY.issue()) as (_, port, _ours, theirs),
        calling(port, theirs) as channel,
    ):
        stub = EchoStub(channel)
        assert await ask(channel) == "a"
        assert [answer.head async for answer in stub.down(Request(topic="a"))] == [0, 1, 2]
        assert (await stub.up(iter([Request(topic="a"), Request(topic="b")]))).epoch == "a,b"
        assert [answer.epoch async for answer in stub.both(iter([Request(topic="a")]))] == ["a"]


@pytest.mark.parametrize(
    ("server", "client", "trusts", "host"),
    [
        pytest.param(AUTHORITY.issue(), FOREIGN.issue(), AUTHORITY, LOOPBACK, id="client of another authority"),
        pytest.param(AUTHORITY.issue(), AUTHORITY.issue(), FOREIGN, LOOPBACK, id="client trusts another authority"),
        pytest.param(AUTHORITY.issue("runtime.test"), AUTHORITY.issue(), AUTHORITY, LOOPBACK, id="server's other name"),
        pytest.param(AUTHORITY.issue(LOOPBACK), AUTHORITY.issue(), AUTHORITY, "localhost", id="server's IP, not name"),
    ],
)
async def test_a_handshake_that_must_fail(
    tmp_path: Path, server: Issued, client: Issued, trusts: Authority, host: str
) -> None:
    async with (
        pair_of_sides(tmp_path, server=server, client=client, trusts=trusts) as (echo, port, _, theirs),
        calling(port, theirs, host) as channel,
    ):
        assert (await refused(EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S))).reason == "unavailable"
        assert echo.seen == 0


async def test_a_client_certificate_that_has_expired_meanwhile(tmp_path: Path) -> None:
    """The files of a running client are not renewed, and time passes: here by an expired pair that gRPC is given."""
    expired = AUTHORITY.issue(lives=timedelta(seconds=-1))
    async with Side(tmp_path / "server", AUTHORITY.issue()).protected() as ours, serving(ours) as (echo, port):
        credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate, expired.key, expired.certificate)
        async with grpc.aio.secure_channel(f"{LOOPBACK}:{port}", credentials) as channel:
            call = EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S)
            assert (await refused(call)).reason == "unavailable"
        assert echo.seen == 0


async def test_nobody_without_a_certificate(tmp_path: Path) -> None:
    """Neither in plain text, nor with TLS alone."""
    async with Side(tmp_path / "server", AUTHORITY.issue()).protected() as ours, serving(ours) as (echo, port):
        plain = calling(port, PLAIN)
        anonymous = grpc.aio.secure_channel(f"{LOOPBACK}:{port}", grpc.ssl_channel_credentials(AUTHORITY.certificate))
        for channel in (plain, anonymous):
            async with channel:
                call = EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S)
                assert (await refused(call)).reason == "unavailable"
        assert echo.seen == 0


async def test_a_listener_elsewhere_without_certificates_is_refused() -> None:
    everywhere = replace(SERVER, address=Address("0.0.0.0", 0))
    with pytest.raises(Refusal, match=r"OA_GRPC_ADDRESS is 0\.0\.0\.0:0") as refusal:
        async with GrpcServer(everywhere, Authenticator("runtime", {}, None)):
            pass
    assert refusal.value.reason == "invalid_setting"
    with pytest.raises(Refusal, match=r"OA_HTTP_ADDRESS is 0\.0\.0\.0:0"):
        async with HttpServer(Starlette(), Address("0.0.0.0", 0), variable="OA_HTTP_ADDRESS"):
            pass
    with pytest.raises(Refusal, match=r"calls go to runtime\.test:1"):
        open_channel(Address("runtime.test", 1), CLIENT, Secret("t"))
    with pytest.raises(Refusal, match="OA_CONTROL_URL"):
        JwksCache(JwksSettings(control_url="http://control.test:8080"), SystemClock())
    async with GrpcServer(everywhere, Authenticator("runtime", {}, None), Protection(allow_plaintext=True)) as server:
        assert server.port


async def _renew(protection: Protection, folder: Path, issued: Issued) -> None:
    issued.write(folder)
    before = protection.certificates
    assert before
    old = before.current
    await before.look()
    assert before.current is not old


RENEWALS = 5


async def test_a_renewal_under_load_loses_no_call(tmp_path: Path) -> None:
    """Unary calls by the hundred, and streams, go on while both sides' certificates change again and again."""
    async with (
        pair_of_sides(tmp_path, server=AUTHORITY.issue(), client=AUTHORITY.issue()) as (echo, port, ours, theirs),
        calling(port, theirs) as channel,
    ):
        stub, over = EchoStub(channel), asyncio.Event()
        assert isinstance(channel, RenewedChannel)

        async def many() -> int:
            count = 0
            while not over.is_set():
                await stub.one(Request(topic="a"))
                count += 1
            return count

        async def until_over() -> AsyncIterator[Request]:
            yield Request(topic="first")
            await over.wait()
            yield Request(topic="last")

        async def long() -> list[str]:
            return [answer.epoch async for answer in stub.both(until_over())]

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            counts = [group.create_task(many()) for _ in range(4)]
            stream = group.create_task(long())
            await eventually(lambda: echo.seen > 10)
            for _ in range(RENEWALS):
                await _renew(theirs, tmp_path / "client", AUTHORITY.issue())
                await _renew(ours, tmp_path / "server", AUTHORITY.issue())
                seen = echo.seen
                await eventually(lambda seen=seen: echo.seen > seen + 10)  # type: ignore[misc]
            assert channel.former_channels == 1  # the stream's: those that have no calls are closed
            over.set()
        assert stream.result() == ["first", "last"]
        assert sum(task.result() for task in counts) == echo.seen
        await eventually(lambda: channel.former_channels == 0)


async def test_new_connections_are_made_with_the_new_certificates(tmp_path: Path) -> None:
    """Both sides move to another authority; whoever stays with the old one is out."""
    async with pair_of_sides(tmp_path, server=AUTHORITY.issue(), client=AUTHORITY.issue()) as parts:
        _, port, ours, theirs = parts
        async with calling(port, theirs) as channel, calling(port, theirs) as idle:
            assert await ask(channel) == "a"
            for protection, name in ((ours, "server"), (theirs, "client")):
                FOREIGN.write(tmp_path / name)
                await _renew(protection, tmp_path / name, FOREIGN.issue())
            assert await ask(channel) == await ask(idle) == "a"
        async with Side(tmp_path / "old", AUTHORITY.issue()).protected() as old, calling(port, old) as channel:
            call = EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S)
            assert (await refused(call)).reason == "unavailable"


async def test_leaving_a_channel_ends_the_calls_of_former_certificates(tmp_path: Path) -> None:
    async with pair_of_sides(tmp_path, server=AUTHORITY.issue(), client=AUTHORITY.issue()) as (echo, port, _, theirs):
        channel = calling(port, theirs)
        echo.behave = _never
        call: Any = EchoStub(channel).down(Request(topic="a"))
        await anext(aiter(call))
        await _renew(theirs, tmp_path / "client", AUTHORITY.issue())
        channel.get_state()
        async with asyncio.timeout(PATIENCE_S):
            await channel.close()
            assert await call.code() is grpc.StatusCode.CANCELLED
            await eventually(lambda: echo.left == 1)


async def _never(_: Request) -> None:
    await asyncio.Event().wait()


# ------------------------------------------------------------------------------------------------------------ HTTP


async def _hello(_: HttpRequest) -> PlainTextResponse:
    return PlainTextResponse("hello")


def _trust(*authorities: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for authority in authorities:
        context.load_verify_locations(cadata=authority.certificate.decode())
    return context


def _client(trust: ssl.SSLContext, port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=trust, trust_env=False, base_url=f"https://localhost:{port}", timeout=PATIENCE_S)


async def test_the_edge_shows_its_certificate_and_changes_it_while_connections_stay(tmp_path: Path) -> None:
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    settings = EdgeTlsSettings(cert_file=cert_file, key_file=key_file, reload_interval_ms=NEVER_MS)
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(edge_protection(settings, TlsSettings(), SystemClock()))
        app = Starlette(routes=[Route("/", _hello)])
        server = HttpServer(app, Address(LOOPBACK, 0), variable="OA_HTTP_ADDRESS", protection=edge)
        await stack.enter_async_context(server)
        kept = await stack.enter_async_context(_client(_trust(AUTHORITY), server.port))
        assert (await kept.get("/")).text == "hello"
        await _renew(edge, tmp_path, FOREIGN.issue())
        assert (await kept.get("/")).text == "hello"  # on the connection that there is
        async with _client(_trust(FOREIGN), server.port) as fresh:
            assert (await fresh.get("/")).text == "hello"
        async with _client(_trust(AUTHORITY), server.port) as stale:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stale.get("/")
        async with plain_http(timeout_s=PATIENCE_S) as plain:
            with pytest.raises(httpx.RemoteProtocolError):
                await plain.get(f"http://localhost:{server.port}/")


async def test_a_stranger_who_shakes_no_hands_has_the_time_of_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, limits = asyncio.get_running_loop(), list[float]()
    create_server = loop.create_server

    async def noted(*arguments: Any, **named: Any) -> asyncio.Server:
        limits.append(named["ssl_handshake_timeout"])
        return await create_server(*arguments, **named)

    monkeypatch.setattr(loop, "create_server", noted)
    cert_file, key_file = AUTHORITY.issue().write(tmp_path)
    settings = EdgeTlsSettings(cert_file=cert_file, key_file=key_file, reload_interval_ms=NEVER_MS)
    protocol = type("Hasty", (BoundedHttpProtocol,), {"head_timeout_s": 0.2})
    async with edge_protection(settings, TlsSettings(), SystemClock()) as edge:
        app = Starlette(routes=[Route("/", _hello)])
        address = Address(LOOPBACK, 0)
        async with HttpServer(app, address, variable="X", protocol=protocol, protection=edge) as server:
            reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
            writer.close()
    assert limits == [0.2], "not the minute that asyncio gives by itself"


async def test_controls_keys_are_fetched_by_https_from_an_authority_of_ours(tmp_path: Path) -> None:
    key = generate_key()

    async def jwks(_: HttpRequest) -> JSONResponse:
        return JSONResponse(to_jwks([key.public_key]))

    control, verifier = Side(tmp_path / "control", AUTHORITY.issue()), Side(tmp_path / "runtime", AUTHORITY.issue())
    edge_files = EdgeTlsSettings(cert_file=control.settings.cert_file, key_file=control.settings.key_file)
    async with (
        edge_protection(edge_files, TlsSettings(), SystemClock()) as edge,
        verifier.protected() as ours,
        HttpServer(
            Starlette(routes=[Route("/.well-known/jwks.json", jwks)]),
            Address(LOOPBACK, 0),
            variable="OA_HTTP_ADDRESS",
            protection=edge,
        ) as server,
    ):
        settings = JwksSettings(control_url=f"https://localhost:{server.port}")
        async with JwksCache(settings, SystemClock(), protection=ours) as keys:
            await keys.check()
        async with JwksCache(settings, SystemClock()) as keys:
            with pytest.raises(Refusal, match="never fetched"):
                await keys.check()


# ---------------------------------------------------------------------------------------------------- who is calling


async def test_a_service_is_known_by_the_name_in_its_certificate(tmp_path: Path) -> None:
    """Whatever token it sends; and over a connection without a certificate there is none."""
    accepted = {"gateway.test": "khala_gateway", "spiffe://test/projector": "projector"}
    gateway, projector = AUTHORITY.issue("gateway.test"), AUTHORITY.issue("spiffe://test/projector")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Side(tmp_path / "server", AUTHORITY.issue()).protected())
        echo = Echo()
        server = GrpcServer(SERVER, Authenticator("runtime", {}, None, accepted), ours)
        server.register(add_echo, echo)
        await stack.enter_async_context(server)
        for name, issued in (("khala_gateway", gateway), ("projector", projector)):
            theirs = await stack.enter_async_context(Side(tmp_path / name, issued).protected())
            channel = await stack.enter_async_context(calling(server.port, theirs))
            answer = await EchoStub(channel).one(Request(topic="a"), timeout=PATIENCE_S)
            assert answer.owner_user_id == f"ServiceCaller(name='{name}')"
        nobody = await stack.enter_async_context(Side(tmp_path / "nobody", AUTHORITY.issue()).protected())
        channel = await stack.enter_async_context(calling(server.port, nobody))
        assert (await refused(EchoStub(channel).one(Request(topic="a")))).reason == "service_not_accepted"
