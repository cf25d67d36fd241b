"""The standard input of `oa` as that of a run's command: read as it comes, and sent in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ulid import ULID

from apps.cli.output import Output
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.edge.talk import Talk
from oa_runlog.stdin import MAX_PIECE_BYTES, StdinPiece, piece_json

_STDIN = 0
_RETRY_MS = 500
"""Pause before an input is sent again that a service could not take now, when it names none."""


@asynccontextmanager
async def attached(talk: Talk, run_id: str, output: Output, fd: int = _STDIN) -> AsyncIterator[None]:
    """Within the block what comes on standard input goes to the run, and its end too. What can't be sent is told."""
    sending = asyncio.create_task(_send_all(talk, run_id, output, fd))
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def pieces(fd: int) -> AsyncIterator[bytes]:
    """What comes on a file descriptor, as soon as it comes, in pieces that an input can hold; none at its end."""
    try:
        while data := await _read(fd):
            yield data
    except OSError:
        return  # it is closed, or of a terminal that is gone


async def _send_all(talk: Talk, run_id: str, output: Output, fd: int) -> None:
    try:
        async for data in pieces(fd):
            await _send(talk, run_id, StdinPiece(data))
        await _send(talk, run_id, StdinPiece(b"", ends=True))
    except Refusal as refusal:
        if refusal.reason != "invalid_transition":  # the run has ended, or is to end: it needs no more
            output.note(f"standard input is not sent any more ({refusal.reason}): {refusal.message}", "yellow")


async def _send(talk: Talk, run_id: str, piece: StdinPiece) -> None:
    """Until it is taken. In halves, where the installation takes less at once. Raises Refusal."""
    key = f"oa-{ULID()}"
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
    """The next bytes; none at the end. Who stops waiting takes nothing away: a thread that reads would."""
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
