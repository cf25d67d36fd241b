"""One worker as a process of its own, for benchmarks: an agent of the SDK that does as many steps as its input says.

`BENCH_WORKER_TOKEN` and `BENCH_RUNTIME` say who it is and where it attaches; `BENCH_SLOTS` how many runs it takes at a
time. It ends at SIGTERM.
"""

from __future__ import annotations

import os

from oa_worker.sdk.tokens import WorkerToken
from openagents import Run, Worker


class _Given:
    """The token of the environment."""

    async def get(self) -> WorkerToken:
        return WorkerToken(os.environ["BENCH_WORKER_TOKEN"], 600.0, os.environ["BENCH_RUNTIME"])


worker = Worker("bench", _Given(), slots=int(os.environ["BENCH_SLOTS"]))


async def add(number: int) -> int:
    """A step that costs nothing."""
    return number + 1


@worker.agent("adding", input=int, output=int)
async def adding(run: Run[int]) -> int:
    """Counts to its input, a step each."""
    number = 0
    for _ in range(run.input):
        number = await run.step("add", add, number)
    return number


if __name__ == "__main__":
    worker.run()
