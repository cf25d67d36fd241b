"""A clock that differs is noticed, named, and measured; one that only seems to differ isn't."""

from __future__ import annotations

import json

import httpx
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JwksCache
from oa_platform.auth.keys import generate_key, to_jwks
from oa_platform.config.loading import load
from oa_platform.config.shared import ClockSettings, DatabaseSettings, JwksSettings
from oa_platform.health.clock_watch import CLOCK_HEADER, ClockWatch
from oa_platform.postgres.pool import Postgres
from oa_platform.telemetry.metrics import REGISTRY
from oa_testing.clock import FakeClock, SkewedClock
from oa_testing.postgres import Database, patient_settings

LIMITS = ClockSettings(leeway_ms=5_000, max_skew_ms=2_000)


class Wrong:
    """How wrong the clock is now."""

    def __init__(self, ms: float = 0) -> None:
        self.ms = ms

    def __call__(self) -> float:
        return self.ms


def _gauge(other: str) -> float | None:
    return REGISTRY.get_sample_value("oa_clock_ahead_seconds", {"compared_with": other})


async def _not_ready(watch: ClockWatch) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await watch.check()
    assert caught.value.reason == "clock_skew"
    return caught.value


@pytest.mark.parametrize("skew_ms", [2_001, -2_001, 30_000, -30_000])
async def test_beyond_the_limit_it_is_not_ready_and_says_by_how_much(clock: FakeClock, skew_ms: int) -> None:
    watch = ClockWatch("runtime", SkewedClock(Wrong(skew_ms), clock), LIMITS)
    watch.told("control", watch.asking(), clock.now_ms())
    refusal = await _not_ready(watch)
    assert refusal.metadata == {"clock": "runtime", "compared_with": "control", "ahead_ms": str(skew_ms)}
    side = "ahead of" if skew_ms > 0 else "behind"
    assert f"the clock of runtime is {abs(skew_ms)} ms {side} that of control" in refusal.message
    assert "OA_CLOCK_SKEW_MAX_MS" in refusal.message
    assert _gauge("control") == skew_ms / 1000


@pytest.mark.parametrize("skew_ms", [0, 2_000, -2_000])
async def test_up_to_the_limit_it_is_ready(clock: FakeClock, skew_ms: int) -> None:
    watch = ClockWatch("runtime", SkewedClock(Wrong(skew_ms), clock), LIMITS)
    await watch.check()  # nothing is known yet
    watch.told("control", watch.asking(), clock.now_ms())
    await watch.check()


async def test_an_answer_that_took_long_says_less(clock: FakeClock) -> None:
    watch = ClockWatch("runtime", clock, LIMITS)
    asked = watch.asking()
    await clock.advance(60)  # a process that was stopped, say: the answer may be from any moment of these
    watch.told("control", asked, clock.now_ms() - 60_000)
    assert watch.ahead_ms("control") == 0
    await watch.check()


async def test_a_step_of_our_own_clock_is_seen_without_asking(clock: FakeClock) -> None:
    wrong = Wrong()
    watch = ClockWatch("runtime", SkewedClock(wrong, clock), LIMITS)
    watch.told("control", watch.asking(), clock.now_ms())
    await clock.advance(3600)
    await watch.check()
    wrong.ms = 30_000
    assert (await _not_ready(watch)).metadata["ahead_ms"] == "30000"
    wrong.ms = 0
    await watch.check()


async def test_the_worst_one_is_named(clock: FakeClock) -> None:
    watch = ClockWatch("runtime", SkewedClock(Wrong(-30_000), clock), LIMITS)
    watch.told("control", watch.asking(), clock.now_ms())
    watch.told("postgres", watch.asking(), clock.now_ms() + 500)
    assert (await _not_ready(watch)).metadata["compared_with"] == "postgres"


# ------------------------------------------------------------------------------------------------- real others


async def test_the_database_is_asked_at_each_check(control_database: Database) -> None:
    wrong = Wrong()
    watch = ClockWatch("control", SkewedClock(wrong), LIMITS)
    settings = patient_settings(control_database.control)
    async with Postgres(settings, "clock-test") as postgres:
        watch.compare_with_database(postgres)
        await watch.check()
        wrong.ms = -30_000
        refusal = await _not_ready(watch)
        assert refusal.metadata["compared_with"] == "postgres"
        # How exact that is hangs on the machine, and is subtracted: never more than it is.
        assert -30_000 <= int(refusal.metadata["ahead_ms"]) < -2_000
        wrong.ms = 0
        await watch.check()


async def test_a_database_that_is_away_is_another_checks_concern() -> None:
    settings = load(DatabaseSettings, {"OA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})

    class Away(Postgres):
        def acquire(self):  # type: ignore[no-untyped-def]
            raise Refusal("unavailable", "away")

    watch = ClockWatch("control", SkewedClock(Wrong()), LIMITS)
    watch.compare_with_database(Away(settings, "clock-test"))
    await watch.check()


@pytest.mark.parametrize(
    ("headers", "ahead_ms"),
    [
        ({CLOCK_HEADER: "1767225630000"}, -30_000),
        ({}, 0),
        ({CLOCK_HEADER: "soon"}, 0),
        ({CLOCK_HEADER: "1" * 40}, 0),
        ({CLOCK_HEADER: "1767225630000", "age": "30"}, 0),
    ],
    ids=["its time", "an older control", "no number", "too large a number", "out of a cache"],
)
async def test_controls_time_comes_with_its_keys(clock: FakeClock, headers: dict[str, str], ahead_ms: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(to_jwks([generate_key().public_key])), headers=headers)

    assert clock.now_ms() == 1_767_225_600_000
    watch = ClockWatch("runtime", clock, LIMITS)
    settings = load(JwksSettings, {"OA_CONTROL_URL": "http://127.0.0.1:8080"})
    async with JwksCache(settings, clock, httpx.MockTransport(answer), watch):
        assert watch.ahead_ms("control") == ahead_ms


async def test_after_a_step_of_our_clock_control_is_asked_again_soon(clock: FakeClock) -> None:
    wrong, control = Wrong(), Wrong()

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {CLOCK_HEADER: str(SkewedClock(control, clock).now_ms())}
        return httpx.Response(200, content=json.dumps(to_jwks([generate_key().public_key])), headers=headers)

    ours = SkewedClock(wrong, clock)
    watch = ClockWatch("runtime", ours, LIMITS)
    settings = load(JwksSettings, {"OA_CONTROL_URL": "http://127.0.0.1:8080"})
    async with JwksCache(settings, ours, httpx.MockTransport(answer), watch):
        wrong.ms = control.ms = 3_600_000  # all machines were asleep, or one that has all services
        await _not_ready(watch)
        await clock.advance(settings.min_refresh_interval_s)
        await watch.check()
        wrong.ms = 0  # now ours alone is wrong, and stays so
        await clock.advance(settings.min_refresh_interval_s)
        assert (await _not_ready(watch)).metadata["ahead_ms"] == "-3600000"
        assert not watch.is_outdated("control")
