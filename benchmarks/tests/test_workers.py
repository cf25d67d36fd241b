"""The benchmarks with processes of workers measure what they say. What it comes to says nothing here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from benchmarks import attached, dispatch, takeover, worker_stream
from benchmarks.stage import Stage, stage

pytestmark = pytest.mark.long

RUNS = 2


@pytest.fixture(scope="module")
def scene() -> Iterator[Stage]:
    with stage(as_used=False) as scene:
        yield scene


def test_a_run_is_timed_until_its_handler_runs_also_beside_a_queue(
    scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "QUEUED", 20)
    with scene.replica() as replica:
        alone = asyncio.run(dispatch.nothing_waits(scene, replica, RUNS))
        beside = asyncio.run(dispatch.running_beside_a_queue(scene, replica, RUNS))
    assert [len(row.latencies_ms) for row in (alone, beside)] == [RUNS, RUNS]
    assert min(*alone.latencies_ms, *beside.latencies_ms) > 0


@pytest.mark.parametrize(("way", "lost_after_ms"), [("killed", 4_500), ("drained", 30_000)])
def test_a_worker_that_goes_is_timed_until_another_one_has_its_run(way: str, lost_after_ms: int, scene: Stage) -> None:
    with scene.replica(takeover.impatient(lost_after_ms)) as replica:
        row = asyncio.run(takeover.takeovers(scene, replica, way, 1, lost_after_ms))
    assert len(row.latencies_ms) == 1


def test_what_a_worker_says_is_counted_as_it_is_stored(scene: Stage) -> None:
    row, stored = asyncio.run(worker_stream.talk(scene, "events", 2, 0.1))
    assert row.events == stored.events > 0
    assert stored.body_bytes > stored.events * worker_stream.PIECE_BYTES
    assert stored.appends >= stored.transactions > 0
    assert asyncio.run(worker_stream.bare(scene, stored, 0.2)).subject == "bare group commit"


def test_idle_workers_are_watched_and_then_called(scene: Stage) -> None:
    with scene.replica() as replica:
        idle, called = asyncio.run(attached.series(scene, replica, 5, 0.2, RUNS))
    assert "a worker" in idle.note
    assert len(called.latencies_ms) == RUNS
