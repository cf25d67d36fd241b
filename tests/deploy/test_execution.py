"""The manifests do what they say: the staging overlay is started as it stands, and used, and rolled."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oa_testing.measured import MEASURED
from oa_testing.stack import StackUnderTest
from tests.deploy.cluster.running import Cluster, running
from tests.deploy.cluster.sandbox import Sandbox, cannot_run
from tests.deploy.cluster.surroundings import Surroundings, surroundings
from tests.deploy.figures import Followers, TimedTail, summary
from tests.deploy.manifests import rendered
from tests.e2e.world import RUN_TIMEOUT_S, Tail, World, signed_in

pytestmark = [pytest.mark.serial, pytest.mark.skipif(bool(cannot_run()), reason=cannot_run()), pytest.mark.timeout(600)]

DEPLOYMENTS = ("control", "khala-gateway", "projector", "runtime")
FOLLOWERS = 8
"""Beside the one whose log is proved."""
LINES_BEFORE = 200
"""So many lines are appended before the roll."""
ROLL_TIMEOUT_S = 400.0
"""A guard: each Deployment is rolled one pod at a time, and each pod may take its grace period."""
CALL_PAUSE_S = 0.2
EDGE = "https://api.staging.openagents.example"


class Endless:
    """A command that writes numbered lines, each with the time of its writing, until it is told to stop."""

    PAUSE_S = 0.02

    def __init__(self, gates: Path) -> None:
        gates.mkdir()
        gates.chmod(0o777)
        self.gates = gates
        program = (
            "import itertools, os, time\n"
            "for n in itertools.count():\n"
            "    print(f'line {n} {time.time_ns()}', flush=True)\n"
            "    if os.path.exists('/gates/stop'): break\n"
            f"    time.sleep({self.PAUSE_S})\n"
        )
        self.command = ["python3", "-c", program]

    def stop(self) -> None:
        """After the line that it is writing."""
        (self.gates / "stop").touch()

    @staticmethod
    def assert_whole(written: bytes | bytearray) -> None:
        """Every line is there, once, and in order."""
        lines = written.decode().splitlines()
        assert [line.rpartition(" ")[0] for line in lines] == [f"line {n}" for n in range(len(lines))]


@contextmanager
def _resolving(hosts: Mapping[str, str]) -> Iterator[None]:
    """This process finds the Gateway's host names, as everybody in the world does once they are in DNS."""
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode("ascii") if isinstance(host, bytes) else host
        return original(hosts.get(name, host), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@asynccontextmanager
async def _person(cluster: Cluster, around: Surroundings) -> AsyncIterator[World]:
    stack = SimpleNamespace(home=cluster.home, urls={"control": EDGE})
    with _resolving(cluster.hosts):
        client = cluster.home / "client"
        async with signed_in(cast("StackUnderTest", stack), client, ca_file=around.home / "site-ca.crt") as world:
            yield world


@asynccontextmanager
async def _worker(cluster: Cluster, world: World, gates: Path) -> AsyncIterator[Sandbox]:
    account = await world.client.commands.create_service_account("worker")
    worker = cluster.worker(EDGE, account.api_key, gates)
    try:
        yield worker
    finally:
        worker.kill()


async def test_the_overlay_starts_and_does_a_run(scratch: Path) -> None:
    endless = Endless(scratch / "gates")
    async with surroundings(scratch) as around, running(rendered("staging"), around, scratch / "cluster") as cluster:
        await cluster.install()
        async with _person(cluster, around) as world, _worker(cluster, world, endless.gates):
            run = await world.client.commands.start_exec(endless.command)
            tail, store = Tail(run.run_id), world.open_store()

            async def enough(_: object, seq: int) -> None:
                if tail.stdout.count(b"\n") >= 20:
                    endless.stop()

            async with asyncio.timeout(RUN_TIMEOUT_S):
                await world.follow(tail, store, enough)
            endless.assert_whole(tail.stdout)
            assert (await world.assert_proved(tail, store)).attempts == 1
            await world.assert_summarised(tail)
        assert cluster.forwarding.refused == {}
        assert set(cluster.forwarding.carried) == {
            *("service control-edge", "service khala", "service workers"),
            *(f"gateway {host}" for host in cluster.hosts),
        }


async def test_deployments_are_rolled_while_a_run_is_appended_to_and_followed(
    scratch: Path, record_property: Callable[[str, object], None]
) -> None:
    endless = Endless(scratch / "gates")
    async with surroundings(scratch) as around, running(rendered("staging"), around, scratch / "cluster") as cluster:
        await cluster.install()
        async with _person(cluster, around) as world, _worker(cluster, world, endless.gates):
            run = await world.client.commands.start_exec(endless.command)
            tail, store = TimedTail(run.run_id), world.open_store()
            others, lines = Followers(world, run.run_id, scratch), asyncio.Event()

            async def note(_: object, seq: int) -> None:
                if tail.stdout.count(b"\n") >= LINES_BEFORE:
                    lines.set()

            async with asyncio.timeout(ROLL_TIMEOUT_S), asyncio.TaskGroup() as group:
                group.create_task(world.follow(tail, store, note))
                following = [group.create_task(others.follow(number)) for number in range(FOLLOWERS)]
                await lines.wait()
                rolled_at_ns, others.began_s = time.time_ns(), asyncio.get_running_loop().time()
                calling = group.create_task(_call(world))
                await cluster.roll(*DEPLOYMENTS)
                calling.cancel()
                endless.stop()
            for line in summary(tail.appended, rolled_at_ns, others):
                sys.stdout.write(f"{line}\n")
                record_property(MEASURED, line)
            endless.assert_whole(tail.stdout)
            assert all(one.result().seqs == tail.seqs for one in following)
            assert (await world.assert_proved(tail, store)).attempts == 1
            await world.assert_summarised(tail)
        assert cluster.forwarding.refused == {}
        assert {pod.name: pod.exit_status for pod in cluster.stopped} == {
            f"{name}-{number}": 0 for name in DEPLOYMENTS for number in (1, 2)
        }
        assert set(cluster.forwarding.carried) == {
            *("service control-edge", "service khala", "service workers"),
            *(f"gateway {host}" for host in cluster.hosts),
        }


async def _call(world: World) -> None:
    """Ask for the list of runs without a pause, which goes through control to projector; none may be refused."""
    while True:
        await world.client.commands.runs()
        await asyncio.sleep(CALL_PAUSE_S)
