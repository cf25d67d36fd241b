"""Run commands one after the other, each on the output of the one before, like a pipeline of a shell. Each is a run.

    export OA_CONTROL_URL=… OA_API_KEY=…
    python examples/exec_pipeline.py 'printf "b\\na\\nb\\n"' sort 'uniq -c'

The pipeline stops at the first command that fails or whose receipt does not prove its output. It needs an attached
worker (`oa worker start --adapter exec`), and `oa` on the PATH to check the receipts.
"""

import asyncio
import base64
import shlex
import sys

from openagents import Client, ExecSpec, Refusal, RunEnded, RunHandle, events

PIECE_BYTES = 96 * 1024
"""Size of a piece of input. An input has at most 192 KiB, and base64 turns three bytes into four."""


class NotProved(Exception):
    """A receipt does not prove its run."""


async def main(lines: list[str]) -> str:
    """Print the output of the last command. Returns what went wrong, in one line; empty if nothing did."""
    printed: bytes | None = None
    async with Client.from_env() as client:
        for number, line in enumerate(lines, start=1):
            try:
                printed = await one(client, line, printed)
            except (Refusal, RunEnded, NotProved, ValueError) as problem:
                return f"command {number} of {len(lines)}, {line!r}: {problem}"
    sys.stdout.buffer.write(printed or b"")
    return ""


async def one(client: Client, line: str, given: bytes | None) -> bytes:
    """Return the output of a command that reads `given`. Raises RunEnded if the command fails."""
    run = await client.start("exec", ExecSpec(tuple(shlex.split(line)), stdin=given is not None))
    if given is not None:
        await feed(run, given)
    printed = b""
    async for event in run.events():
        match event.body:
            case events.RunStarted():
                printed = b""  # the worker of an earlier attempt was lost, and the command begins anew
            case events.TextDelta(stream=events.TextStream.STDOUT, data=data):
                printed += data
            case events.TextDelta(data=data):
                sys.stderr.buffer.write(data)
    finish = await run.result()
    await check_receipt(run)
    print(f"{run.run_id} {line}: {finish.outcome} in {finish.duration_ms} ms, and proved", file=sys.stderr)
    return printed


async def feed(run: RunHandle, given: bytes) -> None:
    """Send `given` to the command's standard input, and then its end."""
    pieces = [given[at : at + PIECE_BYTES] for at in range(0, len(given), PIECE_BYTES)]
    try:
        for piece in pieces:
            await run.send({"base64": base64.b64encode(piece).decode()})
        await run.send({"end": True})
    except Refusal as refusal:
        if refusal.reason != "invalid_transition":  # the command ended before it read everything, as `head` does
            raise


async def check_receipt(run: RunHandle) -> None:
    """Check the receipt of a run against its events and the keys that `oa` trusts. Raises NotProved."""
    oa = await asyncio.create_subprocess_exec(
        "oa", "receipt", "verify", run.run_id, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await oa.communicate()
    if oa.returncode != 0:
        raise NotProved(f"{run.run_id} is not proved: {said.decode(errors='replace').strip()}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])) or 0)
