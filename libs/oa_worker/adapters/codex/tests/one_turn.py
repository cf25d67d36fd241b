"""A worker with one turn of the Codex thread `thread-1`: `one_turn.py FOLDER`, and it says when the turn has begun."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from oa_worker.adapters.codex.tests.rig import BEGUN, WELL, Log, assignment, at_work, said, scripted


async def main(folder: Path) -> None:
    """Until it is killed."""
    log = Log()
    script = {"thread/resume": WELL["thread/start"], "turn/start": [BEGUN, said("turn/started")]}
    async with at_work(scripted(folder, script), assignment(log, {"prompt": "p", "resume": "thread-1"}), log) as turn:
        await log.until(lambda log: "turn progress" in log.kinds)
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await turn


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
