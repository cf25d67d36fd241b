"""The cost of a connection and of a delivery for a gateway."""

from __future__ import annotations

import asyncio

from benchmarks.sizing.bare import bare
from benchmarks.sizing.load import Runs, workers
from benchmarks.sizing.meter import MIB
from benchmarks.sizing.parts import EVENTS_PER_S, Sizes, say
from benchmarks.sizing.rows import Figures, Measured
from benchmarks.sizing.site import Site
from benchmarks.sizing.subscribers import subscribers
from oa_khala.topics import run_events
from oa_worker import Emit

_TOPICS = 10
"""Number of watched runs; each connection watches one of them."""
_DELIVERED = "oa_khala_delivered_frames_total"


async def connections(site: Site, sizes: Sizes) -> Figures:
    """Connections that wait, and then get their run's events; beside sockets of a process with none of our code."""
    adapter = Runs()
    async with workers(site, adapter, 1, _TOPICS):
        begun = await adapter.start(site, _TOPICS)
        topics = [run_events(assignment.run_id) for assignment, _ in begun]
        subscriptions = [await _subscription(site, topics[number % _TOPICS]) for number in range(sizes.connections)]
        gateway = site.meters.subjects["khala_gateway"]
        before = gateway.memory_bytes()
        with subscribers(site.stack.ports.khala_ws, subscriptions):
            await site.until("khala_gateway", "oa_khala_subscriptions", lambda open_: open_ == sizes.connections)
            grown_bytes = gateway.memory_bytes() - before
            span = site.meters.span()
            await asyncio.sleep(sizes.connections_s)
            waiting_cores = span.cores()["khala_gateway"]
            cost_s, frame_bytes = await _deliver(site, sizes, [emit for _, emit in begun], waiting_cores)
    floor_bytes, floor_s = await _floor(sizes, frame_bytes)
    share = 1000 / sizes.connections
    return {
        "khala_gateway.connection_mib": Measured(
            grown_bytes * share / MIB, f"bare sockets: {floor_bytes * share / MIB:.1f} MiB"
        ),
        "khala_gateway.connection_core": Measured(100 * waiting_cores * share),
        "khala_gateway.delivery": Measured(cost_s * 1e6, f"a bare write to a socket: {floor_s * 1e6:.1f} µs"),
    }


async def _subscription(site: Site, topic: str) -> tuple[str, str, str]:
    grant = await site.client.commands.sync_token([topic], surface="cli")
    return grant.token, topic, site.client.auth.device_id


async def _deliver(site: Site, sizes: Sizes, emits: list[Emit], waiting_cores: float) -> tuple[float, int]:
    """The CPU time of a delivery, and the bytes of its frame."""
    delivered, delivered_bytes = await _delivered(site)
    goal = delivered + sizes.deliveries_each * sizes.connections
    span = site.meters.span()
    await asyncio.gather(*(say(emit, sizes.deliveries_each, 1 / EVENTS_PER_S) for emit in emits))
    await site.until("khala_gateway", _DELIVERED, lambda now: now >= goal)
    used_s, seconds = span.cpu_s()["khala_gateway"], span.seconds
    now, now_bytes = await _delivered(site)
    count = now - delivered
    return (used_s - waiting_cores * seconds) / count, round((now_bytes - delivered_bytes) / count)


async def _delivered(site: Site) -> tuple[float, float]:
    return await site.metric("khala_gateway", _DELIVERED), await site.metric(
        "khala_gateway", "oa_khala_delivered_bytes_total"
    )


async def _floor(sizes: Sizes, frame_bytes: int) -> tuple[int, float]:
    """The memory of as many sockets of a bare process, and the CPU time of writing as many bytes to one of them."""
    with bare() as floor:
        before = floor.subject.memory_bytes()
        with subscribers(floor.port, [("", "", "")] * sizes.connections):
            await floor.until_connected(sizes.connections)
            grown_bytes, began_s = floor.subject.memory_bytes() - before, floor.subject.cpu_s()
            await floor.send(sizes.deliveries_each, frame_bytes, 1 / EVENTS_PER_S)
            used_s = floor.subject.cpu_s() - began_s
    return grown_bytes, used_s / (sizes.deliveries_each * sizes.connections)
