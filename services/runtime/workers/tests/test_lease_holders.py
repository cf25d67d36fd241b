"""Who holds a lease is remembered for as long as the log has the past in which it was read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from services.runtime.workers.app.lease_holders import LeaseHolders


class Slow:
    """A store whose first answer takes as long as the test wants."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.holder = ("wrk_1", "sva_1")

    async def lease_holder(self, _run_id: str, _lease_epoch: int) -> tuple[str, str]:
        read = self.holder
        await self.may_answer.wait()
        return read


async def test_a_holder_that_was_read_in_another_past_is_not_remembered() -> None:
    """Events were lost, and the same lease was given to another worker."""
    store = Slow()
    holders = LeaseHolders(cast("Any", store))
    asking = asyncio.create_task(holders.of("run_1", 1))
    await asyncio.sleep(0)
    store.holder = ("wrk_2", "sva_2")
    holders.forget()
    store.may_answer.set()
    await asking
    assert await holders.of("run_1", 1) == ("wrk_2", "sva_2")
