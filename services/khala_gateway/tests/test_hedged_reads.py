"""Reads of history that a replica does not answer."""

from oa_testing.metrics import value_of
from services.khala_gateway.sources.limits import SourceLimits
from services.khala_gateway.sources.metrics import REPLAYS_HEDGED
from services.khala_gateway.tests.harness import Limits, T, running


async def test_who_waits_for_a_read_that_hangs_is_served_by_another_one_long_before_its_time_is_over() -> None:
    async with running(Limits(source=SourceLimits(replay_timeout_ms=3_600_000, hedge_ms=50))) as stack:
        before = value_of(REPLAYS_HEDGED.labels("runtime"))
        stack.runtime.stuck_replays = 1
        client = await stack.connect(T)
        await client.follow(T)
        await client.up_to(T, 10)
        assert client.seqs[T] == list(range(1, 11))
        assert value_of(REPLAYS_HEDGED.labels("runtime")) > before
