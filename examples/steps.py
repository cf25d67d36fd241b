"""An agent whose steps are done once, whatever dies. Start it with OA_CONTROL_URL and OA_API_KEY; in another shell:

oa run start --adapter order --input '{"item": "tea", "ledger": "/tmp/ledger"}'

Kill the worker while it waits, and start another one: it continues where the first one was, and nobody pays twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from openagents import Run, Worker


@dataclass
class Order:
    """The item to buy, and the file that records payments."""

    item: str
    ledger: str
    wait_s: float = 3.0


@dataclass
class Receipt:
    """The item, and the price that was paid."""

    item: str
    paid: Decimal


async def price_of(item: str) -> Decimal:
    """Stands for asking somebody for the price."""
    return Decimal("12.50") + len(item)


def charge(ledger: str, amount: Decimal) -> None:
    """Stands for a payment. It is not `async`, so it runs in a thread."""
    with Path(ledger).open("a", encoding="utf-8") as file:
        file.write(f"{amount}\n")


worker = Worker.from_env(slots=8)


@worker.agent("order", input=Order, output=Receipt)
async def order(run: Run[Order]) -> Receipt:
    """Buys something."""
    price = await run.step("quote", price_of, run.input.item)
    await run.step("charge", charge, run.input.ledger, price)
    await run.sleep(timedelta(seconds=run.input.wait_s))  # the parcel takes a while
    return Receipt(run.input.item, price)


if __name__ == "__main__":
    worker.run()
