"""Start a run from Python, print its output as it comes, and end with its outcome.

    export OA_CONTROL_URL=… OA_API_KEY=…
    python examples/start_a_run.py git log --oneline

This needs an attached worker: `oa worker start --adapter exec`.
"""

import asyncio
import sys

from openagents import Client, ExecSpec, Refusal, RunEnded, events


async def main(argv: list[str]) -> int:
    async with Client.from_env() as client:
        run = await client.start("exec", ExecSpec(tuple(argv)), labels={"started-by": "start_a_run.py"})
        print(run.run_id, file=sys.stderr)
        async for event in run.events():
            if isinstance(event.body, events.TextDelta):
                sys.stdout.buffer.write(event.body.data)
                sys.stdout.flush()
        finish = await run.result()
        print(f"{finish.outcome} in {finish.duration_ms} ms", file=sys.stderr)
        return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (Refusal, RunEnded) as problem:
        sys.exit(str(problem))
