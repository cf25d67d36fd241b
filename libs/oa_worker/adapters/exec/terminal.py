"""The terminal of a command: a pseudo terminal whose other side is ours, to read what it shows and to type."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import termios
from typing import Any, cast

from oa_worker.adapters.exec.outputs import Outputs
from oa_worker.adapters.exec.stdin import Size, Stdin

_END_OF_FILE = b"\x04"
_DISABLED = b"\0"
_INPUT_FLAGS, _LOCAL_FLAGS, _CHARACTERS = 0, 3, 6
"""Their places in the result of `termios.tcgetattr`."""
_ENDING_A_LINE = (
    *(termios.VEOF, termios.VEOL, termios.VEOL2),
    *(termios.VINTR, termios.VQUIT, termios.VSUSP, termios.VKILL),  # these discard what was typed of the line
)


class Keyboard(Stdin):
    """Types at a terminal. As much unread data is kept here as for a pipe."""

    def __init__(self, buffer_bytes: int) -> None:
        super().__init__(buffer_bytes)
        self._last = b"\n"

    async def write(self, data: bytes) -> bool:
        """Type, and wait until there is room for more. False once the terminal is gone."""
        self._last = data[-1:] or self._last
        return await super().write(data)

    def end(self) -> None:
        """Type the end of the input. The terminal stays: it is the command's output, too."""
        if self._is_open and self._transport is not None:
            with contextlib.suppress(termios.error):  # it is gone
                mode = termios.tcgetattr(self._transport.get_extra_info("pipe"))
                self._transport.write(end_of_input(self._last, mode))

    def resize(self, size: Size) -> None:
        """Give the terminal another size. If it differs, the system tells the foreground processes (SIGWINCH)."""
        columns, rows = size
        if self._is_open and self._transport is not None:
            with contextlib.suppress(termios.error):  # it is gone
                termios.tcsetwinsize(self._transport.get_extra_info("pipe"), (rows, columns))


def end_of_input(last: bytes, mode: list[Any]) -> bytes:
    """Return what to type for the end of the input after the byte `last`, in a terminal's `mode` (`termios.tcgetattr`).

    Where lines are edited, the first end of file only ends the line that was begun, and a second one is read as the
    end. At the beginning of a line one is enough, and another would be the end for the next reader. A program that gets
    each byte as it is typed interprets the end of file in its own way, and gets only one.
    """
    characters = mode[_CHARACTERS]
    end = characters[termios.VEOF]
    end = _END_OF_FILE if end == _DISABLED else end
    if not mode[_LOCAL_FLAGS] & termios.ICANON:
        return bytes(end)
    line_ends = {b"\n"} | {characters[which] for which in _ENDING_A_LINE} - {_DISABLED}
    if mode[_INPUT_FLAGS] & termios.ICRNL:
        line_ends.add(b"\r")
    return bytes(end if last in line_ends else end * 2)


async def open_terminal(size: Size, outputs: Outputs, buffer_bytes: int) -> tuple[Keyboard, int]:
    """Open a terminal that `outputs` reads as its file 1. Return its keyboard, and the file descriptor of the command's
    side, which the caller closes. Raises OSError when the machine has none to give.
    """
    ours, theirs = _pseudo_terminal(size)
    loop, keyboard = asyncio.get_running_loop(), Keyboard(buffer_bytes)
    try:
        await loop.connect_read_pipe(lambda: _Screen(outputs), os.fdopen(ours, "rb", 0))
        await loop.connect_write_pipe(lambda: keyboard, os.fdopen(os.dup(ours), "wb", 0))
    except BaseException:
        os.close(theirs)
        outputs.close()
        raise
    return keyboard, theirs


def _pseudo_terminal(size: Size) -> tuple[int, int]:
    columns, rows = size
    try:
        ours, theirs = os.openpty()
    except OSError as error:  # not raised as it is: a missing file would be taken for the command's
        raise OSError(errno.ENOTTY, f"the machine has no terminal to give: {error.strerror}") from error
    termios.tcsetwinsize(theirs, (rows, columns))
    return ours, theirs


class _Screen(asyncio.Protocol):
    """Hands the text that a terminal shows to the outputs. Its end is an error of the system (EIO), which the loop also
    treats as an end.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._outputs.pipe_opened(1, cast("asyncio.ReadTransport", transport))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._outputs.pipe_data_received(1, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._outputs.pipe_connection_lost(1, exc)
