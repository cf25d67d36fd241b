"""An agent that asks before it spends. Start it with OA_CONTROL_URL and OA_API_KEY, then, in another shell:

oa run start --detach --adapter buyer --input '{"item": "tea", "price": "12.50"}'
oa request list latest
oa request answer latest r1 yes
oa run result latest
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from openagents import Run, Worker


@dataclass
class Wish:
    """What to buy, and its price."""

    item: str
    price: str


worker = Worker.from_env(slots=8)


@worker.agent("buyer", input=Wish, output=str)
async def buyer(run: Run[Wish]) -> str:
    """Buys something if somebody approves within an hour."""
    wish = run.input
    if not await run.approve(f"Buy {wish.item}?", detail=f"It costs {wish.price}.", deadline=timedelta(hours=1)):
        return "not approved"
    how = await run.choose("How shall it come?", {"air": "By air", "sea": "By sea"}, default="sea")
    note = await run.ask("What is to be written on the parcel?")
    return f"{wish.item} {how}: {note}"


if __name__ == "__main__":
    worker.run()
