"""The measurements. Each takes the site and the sizes, and returns rows of the table."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.sizing.bare import bare
from benchmarks.sizing.disk import disk
from benchmarks.sizing.load import EVENT_BYTES, Runs, texts, workers
from benchmarks.sizing.meter import MIB
from benchmarks.sizing.rows import SERVICES, Figures, Measured
from benchmarks.sizing.site import ARCHIVED_CLASS, Site
from oa_khala.topics import user_runs
from oa_worker import Emit

EVENTS_PER_S = 20
"""Events a second of each run whose events come one at a time."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    idle_s: float = 20.0
    calls: int = 500
    workers: int = 100
    workers_s: float = 20.0
    runs: int = 200
    talking: int = 50
    events_each: int = 200
    batched: int = 40_000
    connections: int = 500
    connections_s: float = 30.0
    deliveries_each: int = 200
    archived: int = 5_000


Part = Callable[[Site, Sizes], Awaitable[Figures]]


async def idle(site: Site, sizes: Sizes) -> Figures:
    """All services with nothing to do, beside a process with none of our code."""
    meters = site.meters
    with bare() as floor:
        span = meters.span()
        await asyncio.sleep(sizes.idle_s)
        meters.idle_cores = span.cores()
        beside = f"a bare process: {floor.subject.memory_bytes() / MIB:.0f} MiB"
    cores = {f"{service}.idle_core": Measured(100 * meters.idle_cores[service]) for service in SERVICES}
    return {**cores, **memory(site, "idle_mib", beside)}


def memory(site: Site, what: str, beside: str = "") -> Figures:
    """The current memory of all services."""
    subjects = site.meters.subjects
    return {f"{name}.{what}": Measured(subjects[name].memory_bytes() / MIB, beside) for name in SERVICES}


# ---------------------------------------------------------------------------------------------------------- control


async def calls(site: Site, sizes: Sizes) -> Figures:
    """Calls that control answers by itself."""
    topics = [user_runs(site.client.auth.credentials().user_id)]
    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "control.call": site.client.commands.caller,
        "control.sync_token": lambda: site.client.commands.sync_token(topics, surface="cli"),
        "control.worker_token": site.tokens.get,
    }
    figures = {}
    for name, call in kinds.items():
        span = site.meters.span()
        for _ in range(sizes.calls):
            await call()
        figures[name] = Measured(span.cpu_s()["control"] / sizes.calls * 1e6)
    return figures


# ------------------------------------------------------------------------------------------------------------- runs


async def waiting_workers(site: Site, sizes: Sizes) -> Figures:
    """Workers without work."""
    runtime = site.meters.subjects["runtime"]
    before = runtime.memory_bytes()
    async with workers(site, Runs(), sizes.workers, 1):
        span = site.meters.span()
        await asyncio.sleep(sizes.workers_s)
        cores, grown = span.cores()["runtime"], runtime.memory_bytes() - before
    share = 100 / sizes.workers
    return {
        "runtime.worker_mib": Measured(grown * share / MIB),
        "runtime.worker_core": Measured(100 * cores * share),
    }


async def runs(site: Site, sizes: Sizes) -> Figures:
    """Runs without events of their own, from their creation to their end."""
    adapter = Runs()
    adapter.may_end.set()
    async with workers(site, adapter, 4, 4), disk(site) as added:
        before = await site.metric("runtime", "oa_runtime_events_stored_total")
        span = site.meters.span()
        await adapter.start(site, sizes.runs)
        least = before + sizes.runs * 3  # created, assigned, finished
        await site.until("runtime", "oa_runtime_events_stored_total", lambda stored: stored >= least)
        await site.until_projected()
        used = span.cpu_s()
        stored_bytes, _ = await added()
    named = {f"{name}.run": used[name] for name in ("control", "runtime", "projector", "postgres")}
    costs = {name: Measured(cpu_s / sizes.runs * 1e3) for name, cpu_s in named.items()}
    return {**costs, "postgres.run_bytes": Measured(stored_bytes / sizes.runs)}


async def events(site: Site, sizes: Sizes) -> Figures:
    """Events of runs that talk: one at a time from many runs, then as many together as an append takes."""
    adapter = Runs()
    figures: dict[str, Measured] = {}
    async with workers(site, adapter, 10, -(-sizes.talking // 10)):
        emits = [emit for _, emit in await adapter.start(site, sizes.talking)]
        each = sizes.batched // sizes.talking
        for kind, count, pause_s in (("event", sizes.events_each, 1 / EVENTS_PER_S), ("batched_event", each, 0.0)):
            figures |= await _said(site, emits, kind, count, pause_s)
    return figures


async def _said(site: Site, emits: Sequence[Emit], kind: str, count: int, pause_s: float) -> Figures:
    total = count * len(emits)
    async with disk(site) as added:
        before = await site.metric("runtime", "oa_runtime_events_stored_total")
        span = site.meters.span()
        await asyncio.gather(*(say(emit, count, pause_s) for emit in emits))
        await site.until("runtime", "oa_runtime_events_stored_total", lambda stored: stored >= before + total)
        await site.until_projected()
        used = span.cpu_s()
        stored_bytes, wal_bytes = await added()
    costs = {f"{name}.{kind}": used[name] / total * 1e6 for name in ("runtime", "projector", "postgres")}
    figures = {name: Measured(cost) for name, cost in costs.items()}
    beside = f"its text: {EVENT_BYTES} bytes"
    figures[f"postgres.{kind}_wal"] = Measured(wal_bytes / total, beside)
    if kind == "batched_event":
        figures["postgres.event_bytes"] = Measured(stored_bytes / total, beside)
        gib = 1_000_000 / (1 << 30)
        figures["postgres.million_gib"] = Measured(
            stored_bytes / total * gib, f"their text: {EVENT_BYTES * gib:.2f} GiB"
        )
    return figures


async def say(emit: Emit, count: int, pause_s: float) -> None:
    """Emit events of one run, with a pause after each."""
    for event in itertools.islice(texts(), count):
        await emit(event)
        await asyncio.sleep(pause_s)


async def archive(site: Site, sizes: Sizes) -> Figures:
    """A run that moves to the archive."""
    adapter = Runs()
    async with workers(site, adapter, 1, 1):
        ((_, emit),) = await adapter.start(site, 1, ARCHIVED_CLASS)
        await say(emit, sizes.archived, 0.0)
    await site.until("runtime", "oa_runtime_runs_archived_total", bool)
    size = await site.metric("runtime", "oa_runtime_archived_bytes_total")
    return {"archive.event": Measured(size / sizes.archived, f"its text: {EVENT_BYTES} bytes")}
