"""How long until appends are acknowledged again after a kill -9? `python -m benchmarks.recovery [--json FILE]`

Four producers append single events all the time, through worker streams, to a durable Postgres (`fsync` and
`synchronous_commit` on). Then, several times each, with SIGKILL:

- **replica restarted**: the only replica is killed and started again at once as a new process; the producers connect
  again to the same address. Starting Python and the service is part of the time.
- **other replica**: of two replicas one is killed; its workers attach to the other one, with their leases.
- **Postgres restarted**: all of its processes are killed, and it is started again at once; the streams stay open.

The time is from the kill until *every* producer has had an append acknowledged that it first sent after the kill.
Producers ask again every 20 ms; real workers are more patient, by up to what a refusal asks for (`retry_after_ms`).
The note has the time of every kill, in order of size. At the end the log is held against what was acknowledged: all of
it has to be there, at its seq, once and without holes.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import uvloop

from benchmarks.keeper import Keeper, kept
from benchmarks.measure import Figures, report
from benchmarks.stage import UNPACED, Replica, Stage, stage
from benchmarks.steadfast import RETRY_S, Steadfast, missing, recovered_at
from oa_runlog import wire
from oa_runlog.events import TextDelta
from oa_testing.postgres import free_port

PRODUCERS = 4
MAX_RUN_S = 300
"""After this time the benchmark prints where it hangs, and ends."""
_CALM_S = 0.3
"""Time of undisturbed appending before each kill."""
_MAX_WAIT_S = 30.0
_POLL_S = 0.005

Kill = Callable[[], Awaitable[float]]
"""Kills something and arranges its restart; returns the moment of the kill, by the monotonic clock."""


@dataclass
class Runner:
    """Runs a replica on one port, and can restart it. Its start does not block the event loop."""

    stage: Stage
    port: int = field(default_factory=free_port)
    _block: AbstractContextManager[Replica] | None = None
    _replica: Replica | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the replica, and return when it serves."""
        env = {**UNPACED, "OA_GRPC_ADDRESS": self.target, "OA_LOG_LEVEL": "error"}
        self._block = self.stage.replica(env)
        self._replica = await asyncio.to_thread(self._block.__enter__)

    def kill(self) -> float:
        """Send SIGKILL. Returns the moment, by the monotonic clock."""
        assert self._replica is not None
        at = time.monotonic()
        self._replica.kill()
        self.close()
        return at

    def close(self) -> None:
        """End the replica if it runs."""
        if self._block is not None:
            self._block.__exit__(None, None, None)
        self._block = None


async def measure(subject: str, producers: Sequence[Steadfast], kill: Kill, kills: int) -> Figures:
    """Kill several times; latencies are the times until all producers are back."""
    stop = asyncio.Event()
    working = [asyncio.create_task(producer.work(stop)) for producer in producers]
    times_ms = []
    started = time.monotonic()
    try:
        for _ in range(kills):
            await _acknowledged_since(producers, working, time.monotonic())
            await asyncio.sleep(_CALM_S)
            killed_at = await kill()
            back_at = await _acknowledged_since(producers, working, killed_at)
            times_ms.append((back_at - killed_at) * 1000)
    finally:
        stop.set()
        async with asyncio.timeout(_MAX_WAIT_S):
            await asyncio.gather(*working)
    events = sum(len(producer.acknowledged) for producer in producers)
    spread = " ".join(f"{one:.0f}" for one in sorted(times_ms))
    return Figures(subject, f"{kills} kills", events, time.monotonic() - started, times_ms, f"ms: {spread}")


async def _acknowledged_since(
    producers: Sequence[Steadfast], working: Sequence[asyncio.Task[None]], moment: float
) -> float:
    """Wait until each producer has something acknowledged that it sent after `moment`. Returns when the last had."""
    async with asyncio.timeout(_MAX_WAIT_S):
        while True:
            for task in working:
                if task.done():
                    task.result()
            back = [recovered_at(producer.acknowledged, moment) for producer in producers]
            known = [at for at in back if at is not None]
            if len(known) == len(back):
                return max(known)
            await asyncio.sleep(_POLL_S)


async def verify(stage: Stage, producers: Sequence[Steadfast]) -> str:
    """Compare the log with the acknowledged events. Raises AssertionError if any is missing, doubled or left out."""
    connection = await asyncpg.connect(stage.database.runtime)
    try:
        for producer in producers:
            rows = await connection.fetch(
                "SELECT seq, body FROM runtime.events WHERE run_id = $1 ORDER BY seq", producer.run_id
            )
            seqs = [row["seq"] for row in rows]
            assert seqs == list(range(1, len(seqs) + 1)), f"{producer.run_id} has holes"
            bodies = {row["seq"]: wire.decode_event(row["body"]).body for row in rows}
            stored = {seq: body.data for seq, body in bodies.items() if isinstance(body, TextDelta)}
            assert len(set(stored.values())) == len(stored), f"{producer.run_id} has an event twice"
            lost = missing(producer.acknowledged, stored)
            assert not lost, f"{producer.run_id} lost what was acknowledged: {lost[:3]}"
            assert len(stored) == len(producer.acknowledged), f"{producer.run_id} has what nobody was told of"
    finally:
        await connection.close()
    acknowledged = sum(len(producer.acknowledged) for producer in producers)
    resent = sum(producer.resent for producer in producers)
    return f"{acknowledged:,} acknowledged, {resent} times asked again; all stored, once, in order"


def _producers(stage: Stage, name: str, targets: Sequence[str]) -> list[Steadfast]:
    return [Steadfast(stage, targets, f"{name}-{number}") for number in range(PRODUCERS)]


async def replica_restarted(stage: Stage, kills: int) -> tuple[Figures, str]:
    """Kill the only replica, and start its successor."""
    async with _running(stage, 1) as (runner,):

        async def kill() -> float:
            at = runner.kill()
            await runner.start()
            return at

        producers = _producers(stage, "restarted", [runner.target])
        row = await measure("replica restarted", producers, kill, kills)
    return row, await verify(stage, producers)


async def other_replica(stage: Stage, kills: int) -> tuple[Figures, str]:
    """Kill the one of two replicas that has the workers; it is started again before the other one's turn."""
    async with _running(stage, 2) as runners:
        targets = [runner.target for runner in runners]
        turns = itertools.cycle(runners)
        down: list[Runner] = []

        async def kill() -> float:
            while down:
                await down.pop().start()
            victim = next(turns)
            down.append(victim)
            return victim.kill()

        producers = _producers(stage, "other", targets)
        row = await measure("other replica", producers, kill, kills)
    return row, await verify(stage, producers)


async def postgres_restarted(stage: Stage, keeper: Keeper, kills: int) -> tuple[Figures, str]:
    """Kill and restart the database under one replica."""
    async with _running(stage, 1) as (runner,):
        producers = _producers(stage, "postgres", [runner.target])
        row = await measure("Postgres restarted", producers, keeper.kill_and_start, kills)
    return row, await verify(stage, producers)


@asynccontextmanager
async def _running(stage: Stage, count: int) -> AsyncIterator[list[Runner]]:
    runners = [Runner(stage) for _ in range(count)]
    try:
        for runner in runners:
            await runner.start()
        yield runners
    finally:
        for runner in runners:
            runner.close()


def main() -> None:
    """Run all series and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="kills of each kind")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(MAX_RUN_S, exit=True)
    kills = arguments.kills
    with stage() as made:
        outcomes = [uvloop.run(replica_restarted(made, kills)), uvloop.run(other_replica(made, kills))]
        with kept(made) as keeper:
            outcomes.append(uvloop.run(postgres_restarted(made, keeper, kills)))
    title = f"Recovery after kill -9: {PRODUCERS} producers, retry every {RETRY_S * 1000:g} ms, durable"
    report(title, [row for row, _ in outcomes], arguments.json)
    for row, verified in outcomes:
        print(f"{row.subject}: {verified}")


if __name__ == "__main__":
    main()
