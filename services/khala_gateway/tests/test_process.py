"""The process itself: started as in production, while control is away; killed with SIGKILL, drained with SIGTERM."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Cursor
from oa_platform.config.loading import load
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.config import GatewaySettings
from services.khala_gateway.tests.harness import T, U
from services.khala_gateway.tests.process import GatewayProcess


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    await process.start_upstreams()
    yield process
    await process.stack.runtime.stop()
    await process.stack.projector.stop()


@pytest.mark.parametrize("variable", ["OA_WS_DRAIN_WINDOW_MS", "OA_WS_CLOSE_TIMEOUT_MS"])
def test_a_part_of_the_drain_that_is_longer_than_the_drain_is_refused(tmp_path: Path, variable: str) -> None:
    env = GatewayProcess(tmp_path).env
    load(GatewaySettings, {**env, variable: "10000"})
    with pytest.raises(Refusal) as refused:
        load(GatewaySettings, {**env, variable: "10001"})
    assert refused.value.field == variable
    assert f"{variable} (10001) is longer than OA_DRAIN_DEADLINE_S (10)" in refused.value.message


async def test_a_lame_duck_takes_new_clients(gateway: GatewayProcess) -> None:
    gateway.env["OA_LAME_DUCK_S"] = "600"
    with gateway.running() as process:
        await gateway.until(200)
        process.send_signal(signal.SIGTERM)
        await gateway.until(503)
        client = await gateway.connect()
        await client.follow(T)
        process.send_signal(signal.SIGTERM)
        assert (await client.next(frames.Draining)).reconnect_after_ms == 0
        assert await client.close_code() == ("", 1012)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


async def _metrics(gateway: GatewayProcess) -> str:
    answer = await gateway.get("/metrics")
    return answer.text if answer is not None else ""


async def test_it_serves_while_control_is_away_and_drains_on_sigterm(gateway: GatewayProcess) -> None:
    with gateway.running() as process:
        await gateway.until(200)
        client = await gateway.connect()
        await client.follow(T)
        await client.follow(U)
        async with asyncio.timeout(PATIENCE_S):  # what was delivered is counted with the next flush
            while "oa_khala_delivered_frames_total 13.0" not in await _metrics(gateway):
                await asyncio.sleep(0.02)
        assert "oa_khala_connections 1.0" in await _metrics(gateway)
        process.send_signal(signal.SIGTERM)
        assert (await client.next(frames.Draining)).reconnect_after_ms == 0
        assert await client.close_code() == ("", 1012)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    log = gateway.output.read_text("utf-8")
    assert '"event": "connection_gone"' in log
    assert '"subject": "usr_' in log
    assert "eyJ" not in log, "a token was logged"


async def test_sigkill_loses_nothing(gateway: GatewayProcess) -> None:
    with gateway.running():
        await gateway.until(200)
        client = await gateway.connect()
        await client.follow(T)
        gateway.stack.runtime.append(T, 5)
        await client.up_to(T, 12)
    gateway.stack.runtime.append(T, 5)
    await client.close_code()
    with gateway.running():
        await gateway.until(200)
        again = await gateway.connect()
        await again.follow(T, Cursor("e1", client.seqs[T][-1]))
        assert client.seqs[T] + again.seqs[T] == list(range(1, 21))


async def test_it_is_not_ready_without_both_sources_and_says_which(gateway: GatewayProcess) -> None:
    await gateway.stack.projector.stop()
    with gateway.running():
        async with asyncio.timeout(PATIENCE_S):
            while True:
                failures = (await gateway.until(503)).json()["failures"]
                # Who looks after it is told the address that does not answer, not only that there is none.
                if list(failures) == ["projector"] and gateway.env["OA_PROJECTOR_GRPC"] in failures["projector"]:
                    break
                await asyncio.sleep(0.02)
        await gateway.stack.projector.start()
        await gateway.until(200)


async def test_a_port_in_use_is_named(gateway: GatewayProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gateway.ws_port))
        taken.listen()
        with gateway.running() as process:
            assert await asyncio.to_thread(process.wait, PATIENCE_S) == 2
    assert "OA_WS_ADDRESS" in gateway.output.read_text("utf-8")
