"""A stack from outside: run one until told to stop, stop one that another shell runs, remove one that is down."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from oa_base.refusal import Refusal
from oa_localstack.files import is_held
from oa_localstack.installation.state import StackState, end_strays, read_state
from oa_localstack.postgres.placement import remove_home
from oa_localstack.postgres.server import processes_in
from oa_localstack.processes.child import send_signal
from oa_localstack.processes.supervision import Event
from oa_localstack.stack import Stack
from oa_platform.process.signals import stop_signals

_POLL_S = 0.05
STOP_PATIENCE_S = 90.0
"""How long `stop_running` waits: every service may use its whole time to drain, one after the other."""


async def run_until_stopped(stack: Stack, on_ready: Callable[[], None]) -> Event | None:
    """Start `stack`, call `on_ready`, run until SIGINT, SIGTERM or SIGHUP, and stop it.

    Returns None after a signal, or the event of the process that supervision gave up on. A signal during the start
    ends the start. A second one ends this process at once, and the stack's processes with it (`spawn`).
    """
    told = asyncio.Event()
    with stop_signals(lambda number: told.set()):
        running, waiting = asyncio.create_task(_run(stack, on_ready)), asyncio.create_task(told.wait())
        try:
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return running.result() if running.done() else None
        finally:
            running.cancel()
            waiting.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            await stack.stop()


async def _run(stack: Stack, on_ready: Callable[[], None]) -> Event:
    await stack.start()
    on_ready()
    return await stack.wait_given_up()


async def stop_running(home: Path) -> bool:
    """Ask the supervisor of the stack in `home` to stop it, and wait; False when none runs.

    Raises Refusal(deadline_exceeded) when it takes too long, and PermissionError for a stack of another user.
    """
    which = f"the stack in {home}"
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            while (state := read_state(home)) is None and is_held(home / "lock"):
                await asyncio.sleep(_POLL_S)  # it has just been started
            if state is None or not _is_running(home, state):
                return False
            which += f" (pid {state.supervisor.pid})"
            send_signal(state.supervisor.pid, signal.SIGTERM)
            while _is_running(home, state):
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        message = f"{which} did not stop within {STOP_PATIENCE_S:g} s; look at its logs"
        raise Refusal("deadline_exceeded", message) from None
    return True


def _is_running(home: Path, state: StackState) -> bool:
    """Whether the supervisor runs. Its lock says so even if the clock was set, and its mark no longer fits."""
    return state.is_alive() or is_held(home / "lock")


def remove(home: Path) -> bool:
    """Remove everything of a stack that is down: data, secrets, logs; False when there is nothing.

    Raises Refusal(already_exists) while it runs, and OSError for what can't be removed. Processes that outlived a
    killed supervisor are ended first.
    """
    state = read_state(home)
    if is_held(home / "lock") or (state is not None and state.is_alive()):
        which = f" (pid {state.supervisor.pid})" if state is not None else ""  # none yet: it has just been started
        raise Refusal("already_exists", f"the stack in {home} is running{which}; stop it first: `oa down`")
    end_strays(home)
    for process in processes_in(home / "postgres" / "data"):
        send_signal(process.pid, signal.SIGKILL)
    existed = os.path.lexists(home)
    remove_home(home)
    return existed
