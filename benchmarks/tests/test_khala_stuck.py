"""Clients that never read are closed and told why, beside some that read. What it costs says nothing here."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from benchmarks.kernel_sockets import kernel_memory
from benchmarks.khala_stuck import Sizes, measured, stretches
from oa_khala.server.limits import SessionLimits
from services.khala_gateway.sockets.limits import SocketLimits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it keeps for sockets")


def test_those_that_never_read_are_closed_and_let_go() -> None:
    session = SessionLimits(slow_consumer_ms=4_000)
    sockets = SocketLimits(
        send_buffer_bytes=8_192,
        unsent_bytes=4_096,
        write_high_bytes=8_192,
        write_low_bytes=1_024,
        linger_ms=120_000,
        close_timeout_ms=200,
    )
    sizes = Sizes(readers=2, stuck=3, rate=20.0, payload=4_000, quiet_s=0.1)
    samples, found = asyncio.run(measured(sizes, session, sockets))
    assert found == {"woken": 3, "told": 3, "events": 3}
    assert (samples[-1].connected, samples[-1].closed) == (2, 3)
    assert max(sample.system_mib for sample in samples) > 0
    rows = stretches(samples)
    assert [row.setting for row in rows][-1] == "readers alone"
    assert all(row.latencies_ms for row in rows)


def test_what_the_system_keeps_grows_with_what_nobody_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as sender:
            sender.setblocking(False)
            assert kernel_memory(port).connections == 1
            before = kernel_memory(port).sending_bytes
            with pytest.raises(BlockingIOError):
                _send_without_end(sender)
            assert kernel_memory(port).sending_bytes > before + 10_000


def _send_without_end(sender: socket.socket) -> None:
    while True:
        sender.send(bytes(10_000))
