"""An agent that continues where it was, whatever dies. Start it with OA_CONTROL_URL and OA_API_KEY; in another shell:

oa run start --adapter digests --input '{"files": ["/etc/hosts", "/etc/services"]}'

Kill the worker while it waits, and start another one: it does not read a finished file again.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from openagents import Run, Worker


@dataclass
class Files:
    """Files to read, and how long the agent waits after each of them."""

    files: list[str]
    wait_s: float = 3.0


@dataclass
class Digests:
    """SHA-256 of each file that was read so far."""

    by_file: dict[str, str] = field(default_factory=dict)


worker = Worker.from_env(slots=8)


@worker.agent("digests", input=Files, output=Digests)
async def digests(run: Run[Files]) -> Digests:
    """Reads files. After each file it saves the digests and reports its progress."""
    found = await run.restore(Digests) or Digests()
    for name in run.input.files[len(found.by_file) :]:
        content = await asyncio.to_thread(Path(name).read_bytes)
        found.by_file[name] = hashlib.sha256(content).hexdigest()
        await run.save(found)
        done, total = len(found.by_file), len(run.input.files)
        await run.progress(f"{done} of {total} files", done=done, total=total)
        await asyncio.sleep(run.input.wait_s)
    return found


if __name__ == "__main__":
    worker.run()
