"""An agent that lets others work for it, at the same time. Start it with OA_CONTROL_URL and OA_API_KEY; then

oa run start --adapter report --input '["tea", "rice", "salt"]'

Each price is a run of its own: seen, canceled and tried again by itself. Kill the worker while they run, and start it
again: no price is asked for twice.
"""

from __future__ import annotations

from contextlib import suppress

from openagents import ChildFailed, Run, Worker

worker = Worker.from_env(slots=8)


@worker.agent("price", input=str, output=int)
async def price(run: Run[str]) -> int:
    """What a thing costs."""
    if run.input == "gold":
        raise ValueError("that has no price here")
    return len(run.input)


@worker.agent("report", input=list[str], output=dict[str, int])
async def report(run: Run[list[str]]) -> dict[str, int]:
    """What all of them cost, without what has no price."""
    children = {thing: await run.start_child("price", thing) for thing in run.input}
    costs = dict[str, int]()
    for thing, child in children.items():  # they work at the same time, whoever is waited for first
        with suppress(ChildFailed):
            costs[thing] = await child.result(int)
    return costs


if __name__ == "__main__":
    worker.run()
