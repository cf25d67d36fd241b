"""A worker as a process of its own, whose agent stores a number each time that it may, and prints what becomes of it.

TEST_WORKER_TOKEN and TEST_RUNTIME say who it is and where it attaches. SIGTERM drains it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from oa_worker.sdk.transport.tokens import WorkerToken
from openagents import Refusal, Run, Worker

_POLL_S = 0.02


class _Given:
    """The token of the environment."""

    async def get(self) -> WorkerToken:
        return WorkerToken(os.environ["TEST_WORKER_TOKEN"], 600.0, os.environ["TEST_RUNTIME"])


worker = Worker("saying", _Given())


@worker.agent("saying", input=str, output=int)
async def saying(run: Run[str]) -> int:
    """Stores its next number when the folder of its input has a file for it, until there is one named `end`."""
    number = 0
    _tell(f"has {run.id}, attempt {run.attempt}")
    try:
        while not _is_there(run.input, "end"):
            if _is_there(run.input, f"{run.attempt}-{number}"):
                await _say(run, number)
                number += 1
            await asyncio.sleep(_POLL_S)
    except asyncio.CancelledError:
        _tell("cancelled")
        await _say(run, number)
        raise
    return number


async def _say(run: Run[str], number: int) -> None:
    """It may be refused; then the function goes on, as one that takes no notice."""
    _tell(f"says {number}")
    try:
        await run.save(f"{run.attempt}-{number}")
    except Refusal as refusal:
        _tell(f"refused {refusal.reason}")
    else:
        _tell(f"said {number}")


def _is_there(folder: str, file: str) -> bool:
    return (Path(folder) / file).exists()


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    worker.run()
