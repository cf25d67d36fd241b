"""Real proxies with the configurations of the page about ingress: in front of a whole site, and what they pass on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import httpx
import pytest

from oa_client.follow.subscription import Subscription
from oa_testing.peers.authority import server_context
from oa_testing.peers.listener import Listener
from oa_testing.postgres import Database, free_port
from oa_testing.stack import StackUnderTest
from oa_testing.waiting import PATIENCE_S
from tests.e2e.proxies import HOSTS, INNER_NAMES, Proxy
from tests.e2e.tls_site import INSIDE, OUTSIDE, TlsSite
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, signed_in

API, KHALA, WORKERS = HOSTS.values()


@pytest.fixture(params=["nginx", "haproxy", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Proxy:
    """Each that is installed."""
    proxy = Proxy(request.param, tmp_path / "proxy", free_port())
    if proxy.missing:
        pytest.skip(proxy.missing)
    return proxy


@pytest.mark.long
async def test_a_run_through_a_proxy_that_is_reloaded(database: Database, tmp_path: Path, proxy: Proxy) -> None:
    settings = {
        "OA_KHALA_URL": f"wss://{KHALA}:{proxy.port}/khala/v1/ws",
        "OA_RUNTIME_PUBLIC_GRPC": f"grpcs://{WORKERS}:{proxy.port}",
        "OA_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    site = TlsSite(database, tmp_path, names=INNER_NAMES, settings=settings)
    ports = site.ports
    inner = {8080: ports.control_http, 8090: ports.khala_ws, 9444: site.worker_port}
    ops = {9180: ports.control_ops, 9181: ports.runtime_ops, 9183: ports.gateway_ops}
    proxy.configure(inner | ops, INSIDE.certificate + OUTSIDE.certificate, OUTSIDE)
    site.urls["control"] = site.env["OA_CONTROL_URL"] = f"https://{API}:{proxy.port}"
    counting = Counting(tmp_path / "gates", lines=40)
    reloaded = False

    async def reload(_: Subscription, seq: int) -> None:
        nonlocal reloaded
        if not reloaded and tail.stdout.count(b"\n") == 20:
            reloaded = True
            await proxy.reload()
            counting.go_on()

    async with (
        site.running(),
        proxy.running(),
        signed_in(cast("StackUnderTest", site), tmp_path / "client", ca_file=site.outside_ca) as world,
        world.worker(),
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        run = await world.client.commands.start_exec(counting.command)
        tail, store = Tail(run.run_id), world.open_store()
        await world.follow(tail, store, reload)
        assert reloaded
        assert bytes(tail.stdout) == counting.stdout
        await world.assert_proved(tail, store)


class Upstream:
    """Stands for all services, and for their ops ports: answers a request with its headers."""

    def __init__(self, certificate: ssl.SSLContext) -> None:
        self._listener = Listener(self._serve, tls=certificate)
        self.paths: list[str] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """For a block."""
        async with self._listener:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().rstrip().split("\r\n")
            self.paths.append(first.split()[1])
            body = json.dumps([line.split(": ", 1) for line in lines]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()


@contextlib.asynccontextmanager
async def _in_front(proxy: Proxy, upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the proxy, which is in front of `upstream`."""
    async with upstream.listening():
        proxy.configure(dict.fromkeys((8080, 8090, 9444, 9180, 9181, 9183), upstream.port), INSIDE.certificate, OUTSIDE)
        trust = ssl.create_default_context(cadata=OUTSIDE.certificate.decode())
        async with proxy.running(), httpx.AsyncClient(verify=trust, trust_env=False, timeout=PATIENCE_S) as client:
            yield client


@pytest.mark.parametrize(("host", "path"), [(API, "/somewhere"), (KHALA, "/khala/v1/ws")])
async def test_what_a_client_writes_about_its_way_is_not_believed(
    tmp_path: Path, proxy: Proxy, host: str, path: str
) -> None:
    upstream = Upstream(server_context(tmp_path, INSIDE.issue(*INNER_NAMES)))
    claims = {
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-host": "elsewhere.example",
        "x-forwarded-proto": "gopher",
        "authorization": f"Bearer {'t' * 8192}",
    }
    async with _in_front(proxy, upstream) as client:
        answer = await client.get(f"https://{host}:{proxy.port}{path}", headers=claims)
    assert answer.status_code == 200, answer.text
    got = [(name.lower(), value) for name, value in answer.json()]
    chain = ",".join(value for name, value in got if name == "x-forwarded-for")
    assert chain.split(",")[-1].strip() == "127.0.0.1"
    whole = f"{host}:{proxy.port}"
    assert [value for name, value in got if name in ("host", "x-forwarded-host")] == [whole, whole]
    assert [value for name, value in got if name == "x-forwarded-proto"] == ["https"]
    assert [value for name, value in got if name == "authorization"] == [claims["authorization"]]


async def test_a_service_with_a_certificate_of_another_name_gets_nothing(tmp_path: Path, proxy: Proxy) -> None:
    upstream = Upstream(server_context(tmp_path, INSIDE.issue("elsewhere.example")))
    async with _in_front(proxy, upstream) as client:
        answers = [await client.get(f"https://{host}:{proxy.port}/khala/v1/ws") for host in (API, KHALA)]
    assert all(answer.status_code in (502, 503) for answer in answers)
    assert upstream.paths == []
