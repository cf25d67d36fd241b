"""/readyz names what is not ready and why; /livez and /metrics answer whatever the checks say."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import structlog

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address
from oa_platform.config.shared import OpsSettings
from oa_platform.health.readiness import Readiness
from oa_platform.http.ops import ops_server
from oa_platform.http.server import HttpServer, bind
from oa_platform.telemetry import metrics
from oa_testing.plain_http import plain_http
from oa_testing.waiting import PATIENCE_S

LOOPBACK = "127.0.0.1"


async def _fine() -> None:
    return None


async def _away() -> None:
    raise Refusal("unavailable", "The database can't be reached.")


async def _broken() -> None:
    raise KeyError("geheim")


async def _slow() -> None:
    await asyncio.sleep(10)


@pytest.fixture
def readiness() -> Readiness:
    made = Readiness(check_timeout_s=0.2)
    made.phase = "running"
    return made


@pytest.fixture
async def client(readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    settings = OpsSettings(address=Address(LOOPBACK, 0))
    async with ops_server(settings, "runtime", readiness) as server:
        made = plain_http(f"http://{LOOPBACK}:{server.port}")
        yield made
        await made.aclose()


async def test_a_service_whose_checks_pass_is_ready(client: httpx.AsyncClient, readiness: Readiness) -> None:
    readiness.add("database", _fine)
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"service": "runtime", "ready": True, "phase": "running", "failures": {}}


async def test_a_check_may_be_added_while_others_are_asked(readiness: Readiness) -> None:
    async def adds() -> None:
        readiness.add("late", _away)

    readiness.add("early", adds)
    assert await readiness.failures() == {}


async def test_each_failing_check_is_named_with_its_reason(client: httpx.AsyncClient, readiness: Readiness) -> None:
    for name, check in (("fine", _fine), ("away", _away), ("broken", _broken), ("slow", _slow)):
        readiness.add(name, check)
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failures"] == {
        "away": "unavailable: The database can't be reached.",
        "broken": "KeyError",
        "slow": "no answer within 0.2 s",
    }
    assert (await client.get("/livez")).status_code == 200
    assert metrics.REGISTRY.get_sample_value("oa_ready") == 0


@pytest.mark.parametrize("phase", ["starting", "draining"])
async def test_only_a_running_process_is_ready(client: httpx.AsyncClient, readiness: Readiness, phase: str) -> None:
    readiness.phase = phase
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["failures"]) == (503, {"process": phase})


async def test_metrics_of_the_service_and_of_its_process_are_shown(client: httpx.AsyncClient) -> None:
    metrics.count_refusal("not_found", "http")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'oa_refusals_total{reason="not_found",surface="http"}' in answer.text
    assert "process_cpu_seconds_total" in answer.text
    alone = (await client.get("/metrics", params={"name[]": "oa_refusals_total"})).text
    assert 'oa_refusals_total{reason="not_found",surface="http"}' in alone
    assert "process_cpu_seconds_total" not in alone


async def test_a_scrape_says_whether_the_process_is_ready_now_though_nobody_asks_readyz(
    client: httpx.AsyncClient, readiness: Readiness
) -> None:
    away: list[bool] = []

    async def check() -> None:
        if away:
            await _away()

    readiness.add("database", check)
    for failing in (False, True, False):
        away[:] = [failing] * failing
        assert f"oa_ready {float(not failing)}\n" in (await client.get("/metrics")).text


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
    assert (await client.post("/readyz")).status_code == 405


def test_a_check_has_a_name_of_its_own(readiness: Readiness) -> None:
    readiness.add("x", _fine)
    with pytest.raises(ValueError, match="'x'"):
        readiness.add("x", _fine)


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        address = Address(LOOPBACK, taken.getsockname()[1])
        with pytest.raises(Refusal) as caught:
            bind(address, "OA_X_ADDRESS")
    assert (caught.value.reason, caught.value.field) == ("port_in_use", "OA_X_ADDRESS")
    assert str(address) in caught.value.message
    assert "OA_X_ADDRESS" in caught.value.message


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(Refusal) as caught:
        bind(Address(host, 0), "OA_X_ADDRESS")
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_X_ADDRESS")


async def test_a_request_under_way_may_end_in_a_drain() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        started.set()
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    server = HttpServer(app, Address(LOOPBACK, 0), variable="OA_X_ADDRESS")
    async with server, plain_http() as client:
        request = asyncio.create_task(client.get(f"http://{LOOPBACK}:{server.port}/"))
        await started.wait()
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        assert not leaving.done()
        release.set()
        assert (await request).status_code == 204
        await leaving


async def test_whoever_keeps_connections_open_keeps_no_probe_out(readiness: Readiness) -> None:
    settings = OpsSettings(address=Address(LOOPBACK, 0), max_connections=2)
    async with ops_server(settings, "runtime", readiness) as server:
        (first, closed), (second, kept) = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(2)]
        async with plain_http(f"http://{LOOPBACK}:{server.port}") as client:
            assert (await client.get("/livez")).status_code == 200
        assert await asyncio.wait_for(first.read(), PATIENCE_S) == b""
        kept.write(b"GET /livez HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(second.read(), PATIENCE_S)).startswith(b"HTTP/1.1 200 ")
        for writer in (closed, kept):
            writer.close()


async def test_whoever_takes_no_answers_keeps_no_probe_out(readiness: Readiness) -> None:
    settings = OpsSettings(address=Address(LOOPBACK, 0), max_connections=2)
    async with ops_server(settings, "runtime", readiness) as server, AsyncExitStack() as open_sockets:
        for _ in range(settings.max_connections):
            await _ask_and_read_nothing(open_sockets.enter_context(socket.socket()), server.port)
        async with plain_http(f"http://{LOOPBACK}:{server.port}") as client:
            assert (await client.get("/livez")).status_code == 200


async def _ask_and_read_nothing(peer: socket.socket, port: int) -> None:
    """Ask for more than any buffer between here and the server holds, and return once the first answer has begun."""
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(peer, (LOOPBACK, port))
    await loop.sock_sendall(peer, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n" * 1000)
    assert await asyncio.wait_for(loop.sock_recv(peer, 1), PATIENCE_S)


async def test_a_probe_that_waits_for_its_answer_keeps_its_place() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        asked.set()
        await release.wait()

    readiness = Readiness(check_timeout_s=PATIENCE_S)
    readiness.phase = "running"
    readiness.add("slow", check)
    settings = OpsSettings(address=Address(LOOPBACK, 0), max_connections=1)
    async with (
        ops_server(settings, "runtime", readiness) as server,
        plain_http(f"http://{LOOPBACK}:{server.port}") as client,
    ):
        probe = asyncio.create_task(client.get("/readyz"))
        await asked.wait()
        refused, writer = await asyncio.open_connection(LOOPBACK, server.port)
        assert await asyncio.wait_for(refused.read(), PATIENCE_S) == b""
        writer.close()
        release.set()
        assert (await probe).status_code == 200


async def test_what_is_not_ready_is_logged_when_it_changes(readiness: Readiness) -> None:
    """A kubelet shows the status of a probe alone; the log has the reason, and not once for every probe."""
    away: list[bool] = []

    async def check() -> None:
        if away:
            await _away()

    readiness.add("database", check)
    with structlog.testing.capture_logs() as logs:
        for failing in (False, False, True, True, False):
            away[:] = [failing] * failing
            await readiness.failures()
    assert [entry["event"] for entry in logs] == ["ready", "not_ready", "ready"]
    assert logs[1]["failures"] == {"database": "unavailable: The database can't be reached."}
