"""The benchmark of several gateways: everything arrives, whichever way it takes."""

from __future__ import annotations

from benchmarks.gateways import followed_by, measured, topics


def test_every_topic_is_followed_by_as_many_as_the_row_says() -> None:
    assert sorted(topic for gateway in range(5) for topic in followed_by(gateway, 5, "one")) == topics()
    assert followed_by(3, 5, "all") == topics()
    assert followed_by(3, 5, "none") == []


async def test_it_measures_all_ways() -> None:
    rows = await measured(events=50, gateways=(2,), followed=("all",))
    assert [(row.subject, row.events) for row in rows] == [("streams", 50), ("published", 50), ("NATS", 50)]
    assert all("of CPU an event" in row.note for row in rows)
