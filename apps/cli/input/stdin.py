"""Passes the standard input of `oa` to a run's command: reads it as it arrives, and sends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any

from apps.cli.input.tty import keys_alone, left_in_order, sizes
from apps.cli.output import Output
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.edge.new_ids import new_idempotency_key
from oa_client.edge.talk import Talk
from oa_runlog.events import Terminal
from oa_runlog.stdin import MAX_PIECE_BYTES, StdinPiece, piece_json

LEAVE = b"\x1d"
"""Ctrl-] at a terminal."""
_STDIN = 0
_MAX_READS = 64
"""Maximum number of reads of a terminal that wait to be sent."""
_RETRY_MS = 500
"""Pause before an input that a service could not take is sent again, if the service names none."""


@asynccontextmanager
async def attached(
    talk: Talk, run_id: str, output: Output, fd: int = _STDIN, *, stdin: bool = True, terminal: Terminal | None = None
) -> AsyncIterator[None]:
    """Within the block, send standard input and its end to the run. Input that can't be sent is reported.

    `stdin`: whether to send it. `terminal`: the size of the run's terminal, which follows ours. A person who types at
    our terminal then types at the run's: every key goes there except LEAVE, which leaves the block with click's Abort.
    """
    with ExitStack() as stack:
        leave = None
        if stdin and terminal is not None and os.isatty(fd):
            leave = stack.enter_context(left_in_order())
            stack.enter_context(keys_alone(fd))
            output.note("Every key goes to the command; Ctrl-] leaves it.")
        parts = [_send_all(talk, run_id, fd, leave)] if stdin else []
        parts += [_send_sizes(talk, run_id, terminal)] if terminal is not None else []
        sending = [asyncio.create_task(_told(output, part)) for part in parts]
        try:
            yield
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)


async def pieces(fd: int) -> AsyncIterator[bytes]:
    """Yield what arrives on a file descriptor, as soon as it arrives, in pieces that an input can hold, to its end."""
    try:
        while data := await _read(fd):
            yield data
    except OSError:
        return  # it is closed, or its terminal is gone


async def typed(fd: int, leave: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield what is typed up to LEAVE. LEAVE takes effect at once, even while earlier input can't be sent."""
    keys: asyncio.Queue[bytes] = asyncio.Queue(_MAX_READS)

    async def read() -> None:
        async for data in pieces(fd):
            before, left, _ = data.partition(LEAVE)
            await keys.put(before) if before else None
            if left:
                leave()
                return
        await keys.put(b"")

    reading = asyncio.create_task(read())
    try:
        while data := await keys.get():
            while not keys.empty() and len(data) < MAX_PIECE_BYTES:
                more = keys.get_nowait()
                if not more:
                    yield data
                    return
                data += more
            for start in range(0, len(data), MAX_PIECE_BYTES):
                yield data[start : start + MAX_PIECE_BYTES]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _told(output: Output, part: Coroutine[Any, Any, None]) -> None:
    try:
        await part
    except Refusal as refusal:
        if refusal.reason != "invalid_transition":  # the run has ended, or is about to end: it needs no more
            output.note(f"standard input is not sent any more ({refusal.reason}): {refusal.message}", "yellow")


async def _send_all(talk: Talk, run_id: str, fd: int, leave: Callable[[], None] | None) -> None:
    async for data in typed(fd, leave) if leave else pieces(fd):
        await _send(talk, run_id, StdinPiece(data))
    await _send(talk, run_id, StdinPiece(b"", ends=True))


async def _send_sizes(talk: Talk, run_id: str, given: Terminal) -> None:
    async with aclosing(sizes(given)) as changed:
        async for now in changed:
            await _send(talk, run_id, StdinPiece(b"", size=(now.columns, now.rows)))


async def _send(talk: Talk, run_id: str, piece: StdinPiece) -> None:
    """Send a piece until it is taken, in halves if the installation takes less at once. Raises Refusal."""
    key = new_idempotency_key()
    while True:
        try:
            await talk.send(run_id, piece_json(piece), key)
        except Refusal as refusal:
            if refusal.reason == "payload_too_large" and len(piece.data) > 1:
                break
            if refusal.info.action is not ClientAction.RETRY:
                raise
            await asyncio.sleep((refusal.retry_hint_ms or _RETRY_MS) / 1000)
        else:
            return
    half = len(piece.data) // 2
    await _send(talk, run_id, StdinPiece(piece.data[:half]))
    await _send(talk, run_id, StdinPiece(piece.data[half:], piece.ends))


async def _read(fd: int) -> bytes:
    """Return the next bytes; none at the end. A canceled wait takes nothing away; a thread that reads would."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a file: it is always ready
        return await asyncio.to_thread(os.read, fd, MAX_PIECE_BYTES)
    try:
        await ready.wait()
    finally:
        with contextlib.suppress(OSError):
            loop.remove_reader(fd)
    return os.read(fd, MAX_PIECE_BYTES)
