"""How long until the run of a worker that is gone goes on elsewhere? `python -m benchmarks.takeover [--json FILE]`

One replica and its workers, each a process of its own, and a durable Postgres (`fsync` and `synchronous_commit` on).
Several workers have a run each, and one more has free slots. The several go, one after the other, at different moments
between two heartbeats:

- **killed**: SIGKILL. The kernel closes its connection, which says nothing: a worker whose connection broke has the
  lost limit to come back, and keeps its runs.
- **stopped**: SIGSTOP. The connection stays, and nothing comes over it.
- **drained**: SIGTERM, by a worker that waits for none of its runs (`drain_timeout_ms` is 0; by default it waits for
  30 s). It gives them back with its goodbye.

The time is from the signal until the first line of the agent's function on the other worker. The bound stands in the
setting: the lost limit from the last heartbeat on that the replica saw, and the look for lost workers that comes after
it; then the pause of `OA_ATTEMPT_BACKOFF_MS` before the second attempt. Where the worker said goodbye, there is none of
them. The note has the time of every round, in order of size.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.caller import caller, until_attached, worker_process
from benchmarks.measure import Figures, report
from benchmarks.stage import UNPACED, Replica, Stage, stage
from services.runtime.workers.limits import WorkerLimits

DEFAULTS = WorkerLimits()
WAYS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "drained": signal.SIGTERM}
_SETTLED_S = 1.0
"""Time between the last run's start and the first worker's end."""


def impatient(lost_after_ms: int) -> dict[str, str]:
    """The environment of a replica with this lost limit; the other limits keep the proportions of the defaults."""
    return {
        **UNPACED,
        "OA_WORKER_LOST_MS": str(lost_after_ms),
        "OA_WORKER_QUIET_MS": str(lost_after_ms * DEFAULTS.quiet_after_ms // DEFAULTS.lost_after_ms),
        "OA_WORKER_HEARTBEAT_MS": str(_heartbeat_ms(lost_after_ms)),
        "OA_LOG_LEVEL": "error",  # lost workers are expected here
    }


def _heartbeat_ms(lost_after_ms: int) -> int:
    return lost_after_ms * DEFAULTS.heartbeat_interval_ms // DEFAULTS.lost_after_ms


async def takeovers(scene: Stage, replica: Replica, way: str, rounds: int, lost_after_ms: int) -> Figures:
    """End `rounds` workers in this way; latencies are the times until their runs are with the other worker."""
    started = time.monotonic()
    with ExitStack() as processes:
        for _ in range(rounds):
            process = processes.enter_context(worker_process(scene, replica, slots=1))
            processes.callback(process.kill)  # a stopped process ends in no other way
        await until_attached(replica, rounds)
        async with caller(scene, replica) as by:
            holders: dict[str, int] = {}
            for _ in range(rounds):
                run_id = await by.start("lasting", None)
                holders[run_id] = int((await by.said(run_id))["pid"])
            processes.enter_context(worker_process(scene, replica, slots=rounds))
            await until_attached(replica, rounds + 1)
            await asyncio.sleep(_SETTLED_S)
            gone: dict[str, float] = {}
            for run_id, pid in holders.items():
                if gone:
                    await asyncio.sleep(_heartbeat_ms(lost_after_ms) / rounds / 1000)
                gone[run_id] = time.monotonic()
                os.kill(pid, WAYS[way])
            times_ms = [(await by.result(run_id) - at) * 1000 for run_id, at in gone.items()]
    spread = " ".join(f"{one:,.0f}" for one in sorted(times_ms))
    setting = f"{rounds} rounds, at most {_bound_ms(way, lost_after_ms):,} ms and the start of a run"
    return Figures(way, setting, rounds, time.monotonic() - started, times_ms, f"ms: {spread}")


def _bound_ms(way: str, lost_after_ms: int) -> int:
    if way == "drained":
        return 0
    return lost_after_ms + 2 * DEFAULTS.watch_interval_ms + DEFAULTS.retry_initial_ms


async def measured(scene: Stage, replica: Replica, rounds: int, lost_after_ms: int) -> list[Figures]:
    """Every way for a worker to go."""
    return [await takeovers(scene, replica, way, rounds, lost_after_ms) for way in WAYS]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=8, help="workers that go each way")
    parser.add_argument("--lost-ms", type=int, default=DEFAULTS.lost_after_ms, help="the lost limit")
    arguments = parser.parse_args()
    with stage() as scene, scene.replica(impatient(arguments.lost_ms)) as replica:
        rows = uvloop.run(measured(scene, replica, arguments.rounds, arguments.lost_ms))
    report("takeover: how long until the run of a worker that is gone goes on?", rows, arguments.json)


if __name__ == "__main__":
    main()
