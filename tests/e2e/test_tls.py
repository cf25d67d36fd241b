"""Four real processes, a real worker, a run that is watched and proved; and in the middle of it every certificate
changes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from oa_client.follow.subscription import Subscription
from oa_platform.config.callers import SERVICES
from oa_testing.postgres import Database
from oa_testing.stack import StackUnderTest
from tests.e2e.tls_site import TlsSite
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, signed_in


async def test_a_run_where_every_connection_has_tls_and_every_certificate_is_renewed(
    database: Database, tmp_path: Path
) -> None:
    site = TlsSite(database, tmp_path)
    counting = Counting(tmp_path / "gates", lines=60, parts=3)
    renewed = 0

    async def renew(_: Subscription, seq: int) -> None:
        """In each pause of the command, which waits until everybody has the new ones."""
        nonlocal renewed
        if renewed < 2 and tail.stdout.count(b"\n") >= 20 * (renewed + 1):
            site.issue()
            renewed += 1
            await site.until_renewed(renewed)
            counting.go_on()

    async with (
        site.running(),
        signed_in(cast("StackUnderTest", site), tmp_path / "client", ca_file=site.outside_ca) as world,
        world.worker(),
        asyncio.timeout(RUN_TIMEOUT_S),
    ):
        run = await world.client.commands.start_exec(counting.command)
        tail, store = Tail(run.run_id), world.open_store()
        await world.follow(tail, store, renew)
        assert renewed == 2
        assert bytes(tail.stdout) == counting.stdout
        await world.assert_proved(tail, store)
        await world.assert_summarised(tail)
        assert tail.breaks == 0
    assert "plaintext" not in "".join(site.log_path(service).read_text() for service in SERVICES)
