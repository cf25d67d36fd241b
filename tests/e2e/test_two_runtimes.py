"""Beside a second replica of runtime the stack goes on without the first one, at two gateways and whatever carries what
the runtimes tell."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oa_client.core.wire import documents
from oa_client.follow.subscription import Subscription
from oa_client.follow.updates import Applied
from oa_khala.topics import user_runs
from oa_localstack.installation.ports import HOST
from oa_localstack.services import ask
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.peers.nats import nats_server
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.projection.v1.run_summary_pb2 import RunSummary
from openagents.runtime.v1.run_pb2 import RUN_STATUS_SUCCEEDED
from services.khala_gateway.admission.domain import PATH
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, World, signed_in

pytestmark = pytest.mark.long

SOURCES = ("runtime", "projector")
KEEPALIVE = {"OA_GRPC_KEEPALIVE_MS": "1000", "OA_GRPC_KEEPALIVE_TIMEOUT_MS": "1000"}


@asynccontextmanager
async def _two_runtimes(
    scratch: Path,
    settings: Mapping[str, str] | None = None,
    of_gateway: Mapping[str, str] | None = None,
    of_projector: Mapping[str, str] | None = None,
) -> AsyncIterator[StackUnderTest]:
    """A stack whose services know of a second runtime, which starts last and is the one that workers attach to.

    `settings` are those of both runtimes, `of_gateway` and `of_projector` those of the others.
    """
    settings = settings or {}
    base = free_port(tuple(PORT_OFFSETS.values()))
    first = f"{HOST}:{base + PORT_OFFSETS['runtime_grpc']}"
    second, ops_port = f"{HOST}:{free_port()}", free_port()
    knowing = {"OA_RUNTIME_GRPC": f"{first},{second}", **KEEPALIVE}
    overrides = {
        "control": {**knowing, "OA_RUNTIME_PUBLIC_GRPC": second},
        "projector": {**knowing, **(of_projector or {})},
        "khala_gateway": {**knowing, **(of_gateway or {})},
        "runtime": settings,
    }
    stack = StackUnderTest(scratch / "home", port_base=base, postgres_settings=FAST, overrides=overrides)
    await stack.start()
    try:
        addresses = {"OA_GRPC_ADDRESS": second, "OA_OPS_ADDRESS": f"{HOST}:{ops_port}"}
        async with stack.replica("runtime", {**settings, **addresses, "OA_DATABASE_MAY_LOSE_COMMITS": "true"}):
            yield stack
    finally:
        await stack.stop()


async def test_a_run_is_watched_to_its_end_while_one_runtime_stands_still(scratch: Path, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=100)
    in_the_middle = asyncio.Event()

    async def note_output(_: Subscription, seq: int) -> None:
        if tail.stdout:
            in_the_middle.set()

    async with (
        _two_runtimes(scratch) as stack,
        signed_in(stack, tmp_path / "client") as world,
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        store = world.open_store()
        async with world.worker():
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            following = asyncio.create_task(world.follow(tail, store, note_output))
            await in_the_middle.wait()
            pid = stack.pid("runtime")
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            counting.go_on()
            await following
            assert tail.finish is not None
            assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
            assert (await world.assert_proved(tail, store)).attempts == 1
            await world.assert_summarised(tail)


@dataclass
class _Bytes(Tail):
    """A tail that keeps what came as it came."""

    payloads: list[bytes] = field(default_factory=list)

    def take(self, seq: int, payload: bytes) -> None:
        """See Tail."""
        super().take(seq, payload)
        self.payloads.append(payload)


@pytest.mark.parametrize(
    ("commits_over_nats", "frames_over_nats"),
    [(False, False), (True, False), (True, True)],
    ids=["postgres-streams", "nats-streams", "nats-published"],
)
async def test_two_gateways_give_the_same_bytes_in_the_same_order_while_one_runtime_is_killed(
    commits_over_nats: bool, frames_over_nats: bool, scratch: Path, tmp_path: Path
) -> None:
    """Nobody ever looks whether there is more: what either runtime stores is followed because it is told."""
    counting = Counting(tmp_path / "gates", lines=60)
    async with AsyncExitStack() as stack_of, asyncio.timeout(2 * RUN_TIMEOUT_S):
        url = (await stack_of.enter_async_context(nats_server())).url if commits_over_nats else ""
        frames = {"OA_FRAMES_NATS_URL": url} if frames_over_nats else {}
        commits = {"OA_FANOUT_NATS_URL": url} if commits_over_nats else {}
        settings = {**frames, "OA_FEED_AUDIT_MS": "600000"}
        runtimes = {**frames, **commits, "OA_TAIL_POLL_MS": "600000"}
        stack = await stack_of.enter_async_context(_two_runtimes(scratch, runtimes, settings))
        worlds, gateways = await _two_gateways(stack_of, stack, settings, tmp_path)
        if frames_over_nats:
            await _all(gateways, "oa_khala_frames_by_subject", "runtime", 1)
        await stack_of.enter_async_context(worlds[0].worker())
        run = await worlds[0].client.commands.start_exec(counting.command)
        tails, stores = [_Bytes(run.run_id) for _ in worlds], [world.open_store() for world in worlds]
        followers = zip(worlds, tails, stores, strict=True)
        following = [asyncio.create_task(world.follow(tail, store)) for world, tail, store in followers]

        await eventually(lambda: all(tail.stdout.count(b"\n") == 30 for tail in tails))
        stack.kill("runtime")
        counting.go_on()
        await asyncio.gather(*following)
        assert tails[0].payloads == tails[1].payloads
        assert bytes(tails[0].stdout) == counting.stdout
        for world, tail, store in zip(worlds, tails, stores, strict=True):
            assert (await world.assert_proved(tail, store)).attempts == 1
        await worlds[0].assert_summarised(tails[0])


async def test_what_sources_publish_reaches_two_gateways_while_the_server_of_frames_goes_and_comes(
    scratch: Path, tmp_path: Path
) -> None:
    """Neither gateway looks by itself whether it has missed something; at the end one runtime is killed, too.

    So it is with the events of a run, from runtime, and with the summaries of a person's runs, from the projector.
    """
    counting = Counting(tmp_path / "gates", lines=120, parts=4)
    async with AsyncExitStack() as stack_of, asyncio.timeout(2 * RUN_TIMEOUT_S):
        server = await stack_of.enter_async_context(nats_server())
        frames = {"OA_FRAMES_NATS_URL": server.url}
        settings = {**frames, "OA_FEED_AUDIT_MS": "600000"}
        stack = await stack_of.enter_async_context(_two_runtimes(scratch, frames, settings, of_projector=frames))
        worlds, gateways = await _two_gateways(stack_of, stack, settings, tmp_path)
        for source in SOURCES:
            await _all(gateways, "oa_khala_frames_by_subject", source, 1)
        await stack_of.enter_async_context(worlds[0].worker())
        run = await worlds[0].client.commands.start_exec(counting.command)
        tails = [Tail(run.run_id) for _ in worlds]
        pairs = zip(worlds, tails, strict=True)
        following = [asyncio.create_task(world.follow(tail, world.open_store())) for world, tail in pairs]
        told = [asyncio.Event() for _ in worlds]
        summaries = zip(worlds, told, strict=True)
        following += [asyncio.create_task(_summarised_as_ended(world, run.run_id, of_it)) for world, of_it in summaries]

        await eventually(lambda: all(tail.stdout.count(b"\n") == 30 for tail in tails))
        await eventually(lambda: all(of_it.is_set() for of_it in told))
        # So much may have come from history. Now everybody is at the head, and is given what is published.
        counting.go_on()
        await eventually(lambda: all(tail.stdout.count(b"\n") == 60 for tail in tails))
        await server.kill()
        counting.go_on()
        await eventually(lambda: all(tail.stdout.count(b"\n") == 90 for tail in tails))
        await server.start()
        for source in SOURCES:
            await _all(gateways, "oa_khala_frames_by_subject", source, 1)
        stack.kill("runtime")
        counting.go_on()
        await asyncio.gather(*following)
        assert [bytes(tail.stdout) for tail in tails] == [counting.stdout] * 2
        for source in SOURCES:
            assert all([await _metric(ops, "oa_khala_published_frames_total", source) for ops in gateways.values()])


async def _summarised_as_ended(world: World, run_id: str, told_of_it: asyncio.Event) -> None:
    """Follow the person's runs until this one is told to have ended."""
    topic = user_runs(world.client.auth.credentials().user_id)
    async with world.client.subscription(world.open_store()) as subscription:
        await subscription.follow(topic)
        async for update in subscription.updates():
            if isinstance(update, Applied):
                told = map(RunSummary.FromString, documents(update.payload, snapshot=update.snapshot))
                states = {one.status for one in told if one.run_id == run_id}
                if states:
                    told_of_it.set()
                if RUN_STATUS_SUCCEEDED in states:
                    return


async def _two_gateways(
    stack_of: AsyncExitStack, stack: StackUnderTest, settings: Mapping[str, str], folder: Path
) -> tuple[list[World], dict[str, int]]:
    """A client at the stack's gateway and one at another; the ports of the gateways' metrics by their URLs."""
    second = await stack_of.enter_async_context(_second_gateway(stack, settings))
    gateways = {stack.urls["khala"]: stack.ports.gateway_ops, **second}
    worlds = [
        await stack_of.enter_async_context(signed_in(stack, folder / f"client{ops}", khala_url=url))
        for url, ops in gateways.items()
    ]
    return worlds, gateways


@asynccontextmanager
async def _second_gateway(stack: StackUnderTest, settings: Mapping[str, str]) -> AsyncIterator[dict[str, int]]:
    """One that takes runs' events from the second runtime: its URL, and the port of its metrics."""
    ws, ops, grpc = free_port(), free_port(), free_port()
    ports = {"OA_WS_ADDRESS": ws, "OA_OPS_ADDRESS": ops, "OA_GRPC_ADDRESS": grpc}
    addresses = {name: f"{HOST}:{port}" for name, port in ports.items()}
    second = stack._overrides["control"]["OA_RUNTIME_PUBLIC_GRPC"]
    async with stack.replica("khala_gateway", {**settings, **addresses, "OA_RUNTIME_GRPC": second}):
        yield {f"ws://{HOST}:{ws}{PATH}": ops}


async def _all(gateways: Mapping[str, int], name: str, source: str, value: float) -> None:
    """Wait until the metric of a source is that at all gateways."""
    async with asyncio.timeout(PATIENCE_S):
        while [await _metric(ops, name, source) for ops in gateways.values()] != [value] * len(gateways):
            await asyncio.sleep(0.05)


async def _metric(ops: int, name: str, source: str) -> float:
    """What a gateway counts of a source."""
    text = (await ask(ops, "/metrics")).body
    (line,) = (line for line in text.splitlines() if line.startswith(f'{name}{{source="{source}"}}'))
    return float(line.split()[1])
