"""The manifests do what they say: the staging overlay is started as it stands, and used, and rolled."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.deploy.cluster.outside import person, worker
from tests.deploy.cluster.rolls import campaign
from tests.deploy.cluster.running import running
from tests.deploy.cluster.sandbox import cannot_run
from tests.deploy.cluster.surroundings import surroundings
from tests.deploy.manifests import rendered
from tests.e2e.world import RUN_TIMEOUT_S, Tail

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(cannot_run()), reason=cannot_run()), pytest.mark.timeout(600)]

DEPLOYMENTS = ("control", "khala-gateway", "projector", "runtime")
FOLLOWERS = 8
ROLL_TIMEOUT_S = 400.0
"""A guard: each Deployment is rolled one pod at a time, and each pod may take its grace period."""


class Endless:
    """A command that writes numbered lines until it is told to stop."""

    PAUSE_S = 0.02

    def __init__(self, gates: Path) -> None:
        gates.mkdir()
        gates.chmod(0o777)
        self.gates = gates
        program = (
            "import itertools, os, time\n"
            "for n in itertools.count():\n"
            "    print(f'line {n}', flush=True)\n"
            "    if os.path.exists('/gates/stop'): break\n"
            f"    time.sleep({self.PAUSE_S})\n"
        )
        self.command = ["python3", "-c", program]

    def stop(self) -> None:
        """After the line that it is writing."""
        (self.gates / "stop").touch()


async def test_the_overlay_starts_and_does_a_run(scratch: Path) -> None:
    endless = Endless(scratch / "gates")
    async with surroundings(scratch) as around, running(rendered("staging"), around, scratch / "cluster") as cluster:
        await cluster.install()
        async with person(cluster, around) as world, worker(cluster, world, endless.gates):
            run = await world.client.commands.start_exec(endless.command)
            tail, store = Tail(run.run_id), world.open_store()

            async def enough(_: object, seq: int) -> None:
                if tail.stdout.count(b"\n") >= 20:
                    endless.stop()

            async with asyncio.timeout(RUN_TIMEOUT_S):
                await world.follow(tail, store, enough)
            assert tail.stdout.decode() == "".join(f"line {n}\n" for n in range(tail.stdout.count(b"\n")))
            assert (await world.assert_proved(tail, store)).attempts == 1
            await world.assert_summarised(tail)
        assert cluster.forwarding.refused == {}
        assert set(cluster.forwarding.carried) == {
            *("service control-edge", "service khala", "service workers"),
            *(f"gateway {host}" for host in cluster.hosts),
        }


async def test_deployments_are_rolled_while_a_run_is_appended_to_and_followed(scratch: Path) -> None:
    async with asyncio.timeout(ROLL_TIMEOUT_S):
        done = await campaign(scratch, rolls=1, followers=FOLLOWERS)
    for line in done.figures.lines():
        sys.stdout.write(f"{line}\n")
    assert done.wrong == []
    assert done.rolled == {f"{name}-{number}" for name in DEPLOYMENTS for number in (1, 2)}
