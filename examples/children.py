"""An agent that lets other agents work for it, in parallel. Start it with OA_CONTROL_URL and OA_API_KEY; then

oa run start --adapter report --input '["tea", "rice", "salt"]'

Each price is a run of its own, which can be followed, canceled and retried by itself. Kill the worker while they run,
and start it again: no price is asked for twice.
"""

from __future__ import annotations

from contextlib import suppress

from openagents import ChildFailed, Run, Worker

worker = Worker.from_env(slots=8)


@worker.agent("price", input=str, output=int)
async def price(run: Run[str]) -> int:
    """Returns the price of a thing."""
    if run.input == "gold":
        raise ValueError("that has no price here")
    return len(run.input)


@worker.agent("report", input=list[str], output=dict[str, int])
async def report(run: Run[list[str]]) -> dict[str, int]:
    """Returns the prices of all things that have one."""
    children = {thing: await run.start_child("price", thing) for thing in run.input}
    costs = dict[str, int]()
    for thing, child in children.items():  # they work in parallel, in whatever order they are awaited
        with suppress(ChildFailed):
            costs[thing] = await child.result(int)
    return costs


if __name__ == "__main__":
    worker.run()
