"""16 writers over 3 replicas, slow and failing commits, killed connections, readers the whole time.

`python -m tests.order --appends 1000000` is the long form.
"""

from __future__ import annotations

from oa_testing.metrics import value_of
from oa_testing.postgres import Database
from services.runtime.log import metrics
from tests.order import harness
from tests.order.harness import Trouble
from tests.order.runtime_log import RuntimeLog
from tests.order.sequence_log import SequenceLog

WRITERS, READERS, SEED = 16, 3, 20261122


async def test_nothing_is_lost_doubled_or_out_of_order(runtime_database: Database) -> None:
    trouble = Trouble()
    async with RuntimeLog(runtime_database.runtime, runtime_database.admin, WRITERS, trouble, SEED) as log:
        report = await harness.run(
            log, writers=WRITERS, appends=4_000, readers=READERS, trouble=trouble, seed=SEED, settle_s=60
        )
    assert report.is_clean, report
    assert report.acknowledged == 4_000
    assert report.retries > 100, "the trouble was not enough to prove anything"
    assert report.kills > 10, "no connection was killed"
    ways = {how: value_of(metrics.BATCHES.labels(how)) for how in ("read", "cached", "overtaken")}
    assert min(ways.values()) > 5, ways


async def test_the_harness_bites(empty_database: Database) -> None:
    """The same harness on a log with a sequence and a "greater than the last" reader loses elements."""
    trouble = Trouble()
    async with SequenceLog(empty_database.admin, trouble, SEED) as log:
        report = await harness.run(
            log, writers=WRITERS, appends=4_000, readers=READERS, trouble=trouble, seed=SEED, settle_s=1
        )
    assert report.lost > 0, report
