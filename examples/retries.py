"""An agent that fails at first, and continues where it failed. Start it with OA_CONTROL_URL and OA_API_KEY; then

oa run start --adapter import --retries 3 --input '{"file": "/tmp/rows"}'

The first attempt loads the rows and fails to publish them. The second attempt publishes the rows that the first loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openagents import Run, Worker


@dataclass
class Import:
    """The file that records what was done."""

    file: str


def load(file: str) -> list[str]:
    """Takes a long time and should not be done twice. It is not `async`, so it runs in a thread."""
    with Path(file).open("a", encoding="utf-8") as rows:
        rows.write("loaded\n")
    return ["a", "b"]


def publish(file: str, attempt: int, rows: list[str]) -> int:
    """Stands for a server of somebody else, which is busy at first."""
    if attempt == 1:
        raise ConnectionError("the server is busy")
    with Path(file).open("a", encoding="utf-8") as done:
        done.write(f"published {len(rows)}\n")
    return len(rows)


worker = Worker.from_env(slots=8)


@worker.agent("import", input=Import, output=int)
async def import_rows(run: Run[Import]) -> int:
    """Loads the rows once, and publishes them."""
    rows = await run.step("load", load, run.input.file)
    return publish(run.input.file, run.attempt, rows)


if __name__ == "__main__":
    worker.run()
