"""A worker's times are the authority's, whatever the clock of its machine shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from oa_worker.sdk.authority_clock import AuthorityClock, elapsed_s

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_time_goes_on_from_what_the_authority_said_last() -> None:
    elapsed = [100.0]
    clock = AuthorityClock(lambda: elapsed[0])
    before = datetime.now(UTC)
    assert before <= clock.now() <= datetime.now(UTC), "nobody has said what time it is"
    clock.set(NOON)
    elapsed[0] += 3600
    assert clock.now() == NOON + timedelta(hours=1)
    clock.set(NOON)
    assert clock.now() == NOON


def test_the_time_that_passes_is_that_of_the_machine() -> None:
    began = elapsed_s()
    assert elapsed_s() >= began
