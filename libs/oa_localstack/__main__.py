"""`python -m oa_localstack up|down|status|clean`: the stack without the `oa` program. `clean` is for `make clean`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from oa_base.refusal import Refusal
from oa_base.visible import LAYOUT, visible
from oa_localstack.lifecycle import remove, run_until_stopped, stop_running
from oa_localstack.settings import load_settings
from oa_localstack.stack import Stack
from oa_localstack.state import read_state
from oa_localstack.supervision import Event

_USAGE = "usage: python -m oa_localstack up|down|status|clean"
_COMMANDS = ("up", "down", "status", "clean")


def main(arguments: list[str]) -> int:
    """Exit status 0: done; 1: refused, or not as asked; 2: wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may hold what the locale lacks
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        _say(_USAGE)
        return 2
    try:
        home = load_settings(os.environ).home.absolute()
        return _run(arguments[0], home)
    except Refusal as refusal:
        _say(f"{refusal.reason}: {refusal.message}")
        return 1


def _run(command: str, home: Path) -> int:
    if command == "up":
        return asyncio.run(_up())
    if command == "down":
        _say("stopped" if asyncio.run(stop_running(home)) else "no stack runs here")
        return 0
    if command == "clean":
        _say(f"removed {home}" if remove(home) else f"there is no {home}")
        return 0
    return _status(home)


async def _up() -> int:
    stack = Stack(on_event=_show)
    given_up = await run_until_stopped(stack, lambda: _say(f"ready: {stack.urls['control']} {stack.urls['khala']}"))
    return 1 if given_up else 0


def _status(home: Path) -> int:
    state = read_state(home)
    if state is None or not state.is_alive():
        _say("down")
        return 1
    _say(json.dumps(asdict(state), indent=2))
    return 0


def _show(event: Event) -> None:
    _say(f"{event.name}: {event.change.value} {event.detail}".rstrip())


def _say(text: str) -> None:
    sys.stdout.write(f"{visible(text, LAYOUT)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
