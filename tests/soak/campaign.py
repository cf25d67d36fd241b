"""A whole stack in use for a while: what was told, and how its processes did meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from oa_localstack.processes.supervision import RestartPolicy
from oa_localstack.services import ask
from oa_platform.config.callers import SERVICES
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from openagents import Client
from tests.e2e.callers import Caller, caller_of
from tests.soak.growth import Sample, complaints
from tests.soak.people import GoOn, Programs, Tally

WORKER = "worker"
Life = tuple[str, int]
"""A process: its name, and its id."""
Note = Callable[["Report"], None]


@dataclass
class Report:
    """What came of a soak."""

    tally: Tally
    lives: dict[Life, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    kills: int = 0

    def longest(self, name: str) -> list[Sample]:
        """The samples of the process of that name that was sampled most."""
        return max((samples for (of, _), samples in self.lives.items() if of == name), key=len, default=[])

    @property
    def complaints(self) -> list[str]:
        """All that is wrong, in words."""
        return [
            *self.tally.wrong,
            *(f"{name}: {text}" for name in (*SERVICES, WORKER) for text in complaints(self.longest(name))),
        ]


async def soaked(
    folder: Path,
    go_on: GoOn,
    *,
    programs: int,
    seed: int,
    sample_s: float,
    kill_every_s: float | None = None,
    note: Note = lambda report: None,
) -> Report:
    """Use a new stack below `folder` until `go_on` says no. `note` hears of the report after every sample."""
    async with _site(folder) as (caller, worker_pid), Client.from_env(caller.env) as client:
        use = Programs(client, caller.world, seed)
        report = Report(use.tally)
        async with asyncio.TaskGroup() as beside:  # if one of them fails, nothing was watched: the soak fails, too
            watching = beside.create_task(_watch(report, caller.world.stack, worker_pid, sample_s, note))
            troubling = beside.create_task(_trouble(report, caller, random.Random(seed), kill_every_s))
            await use.work(programs, go_on)
            watching.cancel()
            troubling.cancel()
    return report


@asynccontextmanager
async def _site(folder: Path) -> AsyncIterator[tuple[Caller, int]]:
    """A stack as `oa up` starts it, and a worker."""
    stack = StackUnderTest(
        folder / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        policy=RestartPolicy(attempts=1_000_000),
    )
    await stack.start()
    try:
        async with caller_of(stack, folder) as caller:
            env = {**os.environ, **caller.env, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
            worker = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "tests.soak.agents", env=env)
            try:
                yield caller, worker.pid
            finally:
                worker.terminate()
                await worker.wait()
    finally:
        await stack.stop()


async def _watch(report: Report, stack: StackUnderTest, worker_pid: int, sample_s: float, note: Note) -> None:
    while True:
        await asyncio.sleep(sample_s)
        for name, pid in [(service, stack.pid(service)) for service in SERVICES] + [(WORKER, worker_pid)]:
            if pid is not None:
                with suppress(psutil.NoSuchProcess):
                    report.lives[name, pid].append(_sample(psutil.Process(pid)))
        note(report)


def _sample(process: psutil.Process) -> Sample:
    with process.oneshot():
        return Sample(process.memory_full_info().uss, process.num_fds(), process.num_threads())


async def _trouble(report: Report, caller: Caller, chance: random.Random, kill_every_s: float | None) -> None:
    """Kill one of the services now and then, and cut the way to the gateway. Supervision starts services again."""
    stack = caller.world.stack
    while kill_every_s is not None:
        await asyncio.sleep(chance.random() * 2 * kill_every_s)
        if all([(await ask(port)).ready for port in _ops_ports(stack)]):  # so that there is time to do something
            pid = stack.pid(chance.choice(SERVICES))
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    report.kills += 1
            await caller.way.cut()


def _ops_ports(stack: StackUnderTest) -> Sequence[int]:
    ports = stack.ports
    return ports.control_ops, ports.runtime_ops, ports.projector_ops, ports.gateway_ops
