"""A handle on the floor of a service, which is a process of its own (`bare_process`)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.sizing.meter import Subject, process


@dataclass
class Bare:
    """A handle on the process."""

    _child: subprocess.Popen[str]
    port: int

    @property
    def subject(self) -> Subject:
        """The process, as a subject to measure."""
        return process(self._child.pid)

    async def until_connected(self, count: int) -> None:
        """Wait until there are `count` more connections."""
        for _ in range(count):
            await self._heard("connected")

    async def send(self, rounds: int, size: int, pause_s: float) -> None:
        """Have the process send, and return when it has."""
        assert self._child.stdin
        self._child.stdin.write(f"send {rounds} {size} {pause_s}\n")
        self._child.stdin.flush()
        await self._heard("sent")

    async def _heard(self, word: str) -> None:
        assert self._child.stdout
        assert (await asyncio.to_thread(self._child.stdout.readline)).strip() == word


@contextmanager
def bare() -> Iterator[Bare]:
    """The process, for a block."""
    command = [sys.executable, "-m", "benchmarks.sizing.bare_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        yield Bare(child, int(child.stdout.readline()))
