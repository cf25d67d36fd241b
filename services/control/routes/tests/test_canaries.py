"""A canary steps, measures and goes back by itself, whichever replica is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_client.cpython.operators.routes import RouteGroup
from oa_testing.clock import FakeClock
from oa_testing.postgres import Database
from services.control.routes.app.book import RouteBook
from services.control.routes.app.canaries import Canaries
from services.control.routes.app.operators import Operators
from services.control.routes.domain.canary import STEPS, Canary
from services.control.routes.domain.groups import Group, Side
from services.control.routes.limits import KEPT_CANARY_S, KEPT_VERSIONS
from services.control.tests.cases import ORIGIN, Cases, cases_on
from services.control.tests.harness import Control, running_control
from services.control.tests.web import built_shell, legacy_process, operators_of, until

SIDES = frozenset(Side)
HOLD_MS = 60_000
ENOUGH = 100
BROWSER = {"accept": "text/html"}


class Replica:
    """One replica's part, driven by the test."""

    def __init__(self, cases: Cases) -> None:
        self.clock = cases.clock
        self.book = RouteBook(cases.transactions, cases.clock)
        self.canaries = Canaries(cases.transactions, cases.clock, self.book, 1.0)
        self.operators = Operators(transactions=cases.transactions, clock=cases.clock, sides=SIDES, hmac_key=b"key")

    async def measure(
        self, shell: int = 0, errors: int = 0, ms: float = 10, legacy: int = ENOUGH, legacy_errors: int = 0
    ) -> None:
        """Answers of both sides in the present step, reported and judged."""
        await self.book.start()
        for number in range(legacy):
            self.canaries.take("app", Side.LEGACY, 503 if number < legacy_errors else 200, 10)
        for number in range(shell):
            self.canaries.take("app", Side.SHELL, 500 if number < errors else 200, ms)
        await self.canaries.turn()
        await self.book.start()

    @property
    def percent(self) -> int:
        group = self.book.decided.groups.get("app")
        assert group is not None
        return group.percent

    async def newest(self) -> Canary:
        return (await self.operators.show()).canaries[0]


@pytest.fixture
async def one(cases: Cases) -> Replica:
    replica = Replica(cases)
    await replica.operators.set_group(Group("app", ("/app",), None, 30), ORIGIN)
    await replica.operators.start_canary("app", HOLD_MS, ENOUGH, ORIGIN)
    await replica.book.start()
    return replica


@asynccontextmanager
async def another(database: Database, clock: FakeClock) -> AsyncIterator[Replica]:
    async with cases_on(database, clock) as cases:
        replica = Replica(cases)
        await replica.book.start()
        yield replica


async def test_it_takes_all_steps_and_is_done_across_replicas(
    one: Replica, control_database: Database, clock: FakeClock
) -> None:
    async with another(control_database, clock) as two:
        for number, percent in enumerate(STEPS):
            replica = (one, two)[number % 2]  # the one before is gone, as far as this one knows
            await replica.book.start()
            assert replica.percent == percent
            await replica.measure(shell=ENOUGH if percent else 0)
            assert replica.percent == percent  # its time is not over
            await clock.advance(HOLD_MS / 1000)
            await replica.measure(shell=ENOUGH if percent else 0)
        assert ((await two.newest()).outcome, one.percent) == ("finished", 100)
        await one.canaries.turn()
        # All of it goes back at once, to what an operator had set.
        _, groups = await two.operators.roll_back(ORIGIN)
        assert [each.percent for each in groups] == [30]


@pytest.mark.parametrize(("errors", "ms", "why"), [(50, 10.0, "errors"), (0, 900.0, "slow")])
async def test_a_shell_that_is_worse_goes_back(
    one: Replica, clock: FakeClock, errors: int, ms: float, why: str
) -> None:
    await clock.advance(HOLD_MS / 1000)
    await one.measure()
    assert one.percent == 5
    await one.measure(shell=ENOUGH, errors=errors, ms=ms)  # at once: it need not stand for its time
    newest = await one.newest()
    assert (one.percent, newest.outcome, newest.reason) == (0, "rolled_back", why)
    assert one.book.decided.canaries == []


@pytest.mark.parametrize("steps", [1, 2])
async def test_an_outage_of_the_legacy_side_that_is_over_excuses_no_shell(
    one: Replica, clock: FakeClock, steps: int
) -> None:
    await clock.advance(HOLD_MS / 1000)
    await one.measure(legacy=10 * ENOUGH, legacy_errors=9 * ENOUGH)
    for _ in range(steps):
        assert one.percent > 0
        await clock.advance(HOLD_MS / 1000)
        await one.measure(shell=ENOUGH)
    await one.measure(shell=ENOUGH, errors=ENOUGH // 2, legacy=0)
    newest = await one.newest()
    assert (one.percent, newest.outcome, newest.reason) == (0, "rolled_back", "errors")


async def test_what_several_replicas_measure_is_one_sum(
    one: Replica, control_database: Database, clock: FakeClock
) -> None:
    await clock.advance(HOLD_MS / 1000)
    await one.measure()
    async with another(control_database, clock) as two:
        await clock.advance(HOLD_MS / 1000)
        await one.measure(shell=ENOUGH // 2)
        assert one.percent == 5
        await two.measure(shell=ENOUGH // 2)
        assert two.percent == 25


async def test_all_replicas_at_once_take_one_step(one: Replica, control_database: Database, clock: FakeClock) -> None:
    async with another(control_database, clock) as two:
        await clock.advance(HOLD_MS / 1000)
        for _ in range(ENOUGH):
            one.canaries.take("app", Side.LEGACY, 200, 10)
        for _ in range(2):
            await asyncio.gather(*(replica.canaries.turn() for replica in (one, two) * 4))
        decided, canaries = await one.operators.show()
        assert (canaries[0].step, decided.version) == (1, 3)  # set, started, one step


async def test_what_was_measured_waits_for_the_database(
    one: Replica, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    one.canaries.take("app", Side.LEGACY, 200, 10)
    await admin.execute("ALTER TABLE control.canary_samples RENAME TO away")
    with pytest.raises(Exception, match="canary_samples"):
        await one.canaries.turn()
    await admin.execute("ALTER TABLE control.away RENAME TO canary_samples")
    one.canaries.take("app", Side.LEGACY, 200, 10)
    await one.canaries.turn()
    assert await admin.fetchval("SELECT requests FROM control.canary_samples") == 2


async def test_operators_end_a_canary(one: Replica, clock: FakeClock) -> None:
    with pytest.raises(Refusal, match="already_exists"):
        await one.operators.start_canary("app", 0, 0, ORIGIN)
    with pytest.raises(Refusal, match="not_found"):
        await one.operators.start_canary("other", 0, 0, ORIGIN)
    await clock.advance(HOLD_MS / 1000)
    await one.measure()
    await one.operators.roll_back(ORIGIN)
    newest = await one.newest()
    assert (newest.outcome, newest.reason) == ("rolled_back", "operator")
    await one.book.start()
    assert one.percent == 30
    await one.operators.start_canary("app", 0, 0, ORIGIN)
    await one.operators.set_group(Group("app", ("/app",), Side.LEGACY, 0), ORIGIN)
    assert (await one.newest()).outcome == "replaced"
    with pytest.raises(Refusal, match="invalid_value"):
        await one.operators.start_canary("app", 0, 0, ORIGIN)


async def test_everything_is_in_the_audit_trail(
    one: Replica, clock: FakeClock, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    await clock.advance(HOLD_MS / 1000)
    await one.measure()
    await one.measure(shell=ENOUGH, errors=ENOUGH)
    await one.operators.delete_group("app", ORIGIN)
    await one.operators.roll_back(ORIGIN)
    await one.operators.start_maintenance("", 0, ORIGIN)
    await one.operators.create_bypass(0, ORIGIN)
    await one.operators.end_maintenance(ORIGIN)
    rows = await admin.fetch("SELECT action, actor, target, reason FROM control.audit_events ORDER BY 1")
    assert {tuple(row) for row in rows} == {
        ("route.set", "operator", "app", ""),
        ("canary.started", "operator", "app", ""),
        ("canary.rolled_back", "canary", "app", "errors"),
        ("route.deleted", "operator", "app", ""),
        ("route.rolled_back", "operator", "to version 4", ""),
        ("maintenance.started", "operator", "", ""),
        ("maintenance.bypass_made", "operator", "", ""),
        ("maintenance.ended", "operator", "", ""),
    }


async def test_old_versions_and_canaries_are_swept(
    one: Replica, clock: FakeClock, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    one.canaries.take("app", Side.LEGACY, 200, 10)
    await one.canaries.turn()
    await one.operators.delete_group("app", ORIGIN)
    await admin.execute(
        "INSERT INTO control.route_versions SELECT n, 0, '[]', now() FROM generate_series(4, $1::bigint) AS n",
        KEPT_VERSIONS + 5,
    )
    await admin.execute("UPDATE control.route_head SET version = $1", KEPT_VERSIONS + 5)
    await one.operators.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.route_versions") == KEPT_VERSIONS
    assert await admin.fetchval("SELECT count(*) FROM control.canaries") == 1
    await clock.advance(KEPT_CANARY_S + 1)
    await one.operators.sweep()
    assert await admin.fetchval("SELECT count(*) FROM control.canaries") == 0
    assert await admin.fetchval("SELECT count(*) FROM control.canary_samples") == 0
    with pytest.raises(Refusal, match="not_found"):
        await one.operators.roll_back(ORIGIN)


@pytest.mark.long
async def test_a_shell_that_degrades_under_load_is_taken_back_without_anybody(
    control_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real replicas and a real legacy process; the shell's files go away while the canary runs."""
    # On a busy machine the shell can be slower than the legacy side.
    monkeypatch.setattr("services.control.routes.domain.canary.SLOW_FLOOR_MS", math.inf)
    root = built_shell(tmp_path / "web")

    def replica(url: str) -> AbstractAsyncContextManager[Control]:
        return running_control(control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=str(root), OA_LEGACY_URL=url)

    async with (
        legacy_process() as url,
        replica(url) as first,
        replica(url) as second,
        operators_of(first) as operators,
    ):
        await operators.set(RouteGroup("app", ["/app"], "", 0))
        await operators.start_canary("app", 1, 10)

        async def load() -> None:
            while True:
                for control in (first, second):
                    control.http.cookies.clear()
                    await control.http.get("/app", headers=BROWSER)

        loading = asyncio.create_task(load())
        try:

            async def reaches(percent: int, outcome: str) -> bool:
                found = (await operators.read()).canaries[0]
                return found.percent >= percent and found.outcome == outcome

            await until(lambda: reaches(25, ""))
            (root / "index.html").unlink()
            await until(lambda: reaches(25, "rolled_back"))
        finally:
            loading.cancel()
        found = await operators.read()
        assert [one.percent for one in found.groups] == [0]
        assert found.canaries[0].reason == "errors"
        for control in (first, second):

            async def only_legacy(control: Control = control) -> bool:
                answers = [await control.http.get("/app", headers=BROWSER) for _ in range(3)]
                return all("legacy" in answer.text for answer in answers)

            await until(only_legacy)
