"""See the package."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import fields
from pathlib import Path

import structlog

from benchmarks.measure import machine
from benchmarks.sizing import parts
from benchmarks.sizing.connections import connections
from benchmarks.sizing.example import needed
from benchmarks.sizing.parts import Part, Sizes
from benchmarks.sizing.rows import Figures, as_table, write_json
from benchmarks.sizing.site import site
from benchmarks.sockets import allow_sockets

PARTS: dict[str, Part] = {
    "calls": parts.calls,
    "workers": parts.waiting_workers,
    "runs": parts.runs,
    "events": parts.events,
    "archive": parts.archive,
    "connections": connections,
}


async def measure(sizes: Sizes, names: list[str]) -> Figures:
    """All rows of these parts, and those of idle replicas, which every other row needs."""
    async with site() as where:
        figures = dict(await parts.idle(where, sizes))
        for name in names:
            figures |= await PARTS[name](where, sizes)
        if names == list(PARTS):
            figures |= parts.memory(where, "used_mib")
        return figures


def main() -> None:
    """Entry point of `python -m benchmarks.sizing`."""
    parser = argparse.ArgumentParser(description="What each service costs.")
    parser.add_argument("--only", choices=PARTS, action="append", help="besides idle replicas; may be given again")
    parser.add_argument("--json", type=Path)
    for each in fields(Sizes):
        option = "--" + each.name.replace("_", "-")
        parser.add_argument(option, type=type(each.default), default=each.default, help=f"default {each.default}")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    sizes = Sizes(**{each.name: getattr(arguments, each.name) for each in fields(Sizes)})
    allow_sockets(max(sizes.workers, sizes.connections))
    figures = asyncio.run(measure(sizes, arguments.only or list(PARTS)))
    print(as_table(figures), needed(figures), sep="\n\n")
    print("\n" + ", ".join(f"{what} {value}" for what, value in machine().items()))
    if arguments.json is not None:
        write_json(figures, arguments.json)


if __name__ == "__main__":
    main()
