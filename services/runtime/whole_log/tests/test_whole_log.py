"""The log, put together out of rows and artifacts: whatever leaves it when, its readers get what was there, or are
refused at what is lost; and no more is kept open than the limits say."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.events import EventType
from oa_testing.metrics import value_of
from services.runtime.archive.app.archive import Archived
from services.runtime.archive.app.spool import Spool
from services.runtime.authority.domain import Head
from services.runtime.log.domain.records import LogRecord
from services.runtime.whole_log import metrics
from services.runtime.whole_log.app.artifact_cache import ArtifactCache, OpenArtifact
from services.runtime.whole_log.app.whole_log import WholeLog
from services.runtime.whole_log.domain import (
    ArchivedEntry,
    Entry,
    affordable,
    available,
    consecutive,
    runs_needed,
    within,
)
from services.runtime.whole_log.limits import ArtifactCacheLimits

# ------------------------------------------------------------------------------------------------- decisions


def entry(position: int, run_id: str = "", size: int = 1) -> Entry:
    """An archived entry of a run, or a row."""
    if run_id:
        return ArchivedEntry(position, run_id, position)
    return LogRecord(position, "row", position, EventType.TEXT_DELTA, bytes(size))


@given(st.integers(0, 5), st.sets(st.integers(0, 30)))
def test_consecutive_entries_end_before_the_first_that_is_missing(after: int, positions: set[int]) -> None:
    given_ones = [entry(position) for position in sorted(positions) if position > after]
    taken = consecutive(after, given_ones)
    assert [one.position for one in taken] == list(range(after + 1, after + 1 + len(taken)))
    assert after + 1 + len(taken) not in positions


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(1, 10), st.integers(0, 300))
def test_as_many_artifacts_are_affordable_as_are_within_the_limits(sizes: list[int], count: int, size: int) -> None:
    found = affordable(sizes, count, size)
    assert found == 1 or (found <= count and sum(sizes[:found]) <= size)
    assert found == len(sizes) or found + 1 > count or sum(sizes[: found + 1]) > size
    assert affordable([], count, size) == 0


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(0, 300))
def test_a_page_has_one_entry_and_what_else_is_within_its_bytes(sizes: list[int], size: int) -> None:
    entries = [entry(position, size=one) for position, one in enumerate(sizes, start=1)]
    page = within(entries, lambda one: len(one.data) if isinstance(one, LogRecord) else 0, size)
    assert len(page) == 1 or sum(sizes[: len(page)]) <= size
    assert len(page) == len(sizes) or sum(sizes[: len(page) + 1]) > size


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=20), st.sets(st.sampled_from("abc")))
def test_what_is_available_ends_before_the_first_artifact_that_is_not(runs: list[str], at_hand: set[str]) -> None:
    entries = [entry(position, run_id) for position, run_id in enumerate(runs, start=1)]
    page = available(entries, at_hand)
    assert set(runs[: len(page)]) <= at_hand | {""}
    assert len(page) == len(runs) or runs[len(page)] not in at_hand | {""}
    assert runs_needed(entries) == [one for one in dict.fromkeys(runs) if one]


# ------------------------------------------------------------------------------------------------- the whole of it


@dataclass
class FakeDatabase:
    """One partition; `runs[position - 1]` is whose event stands there. What is to happen at the next awaits is given by
    `schedule`: a run that is archived, or nothing."""

    runs: Sequence[str]
    schedule: list[str] = field(default_factory=list)
    archived: set[str] = field(default_factory=set)
    lost: int = 0

    def __post_init__(self) -> None:
        seqs: dict[str, int] = {}
        self.log: list[LogRecord] = []
        for position, run_id in enumerate(self.runs, start=1):
            seqs[run_id] = seqs.get(run_id, 0) + 1
            data = f"{run_id} {seqs[run_id]} ".encode() * (1 + position % 4)
            self.log.append(LogRecord(position, run_id, seqs[run_id], EventType.TEXT_DELTA, data))
        self.lines = {run_id: self._artifact(run_id) for run_id in seqs}

    def _artifact(self, run_id: str) -> bytes:
        events = [
            {"seq": one.seq, "type": one.type, "event": base64.b64encode(one.data).decode()}
            for one in self.log
            if one.run_id == run_id
        ]
        return b"".join(json.dumps(line).encode() + b"\n" for line in ({}, *events, {}))

    async def _meanwhile(self) -> None:
        await asyncio.sleep(0)
        if self.schedule and (run_id := self.schedule.pop()):
            self.archived.add(run_id)

    async def heads(self) -> dict[int, Head]:
        return {0: Head(len(self.log), b"")}

    async def floor(self, partition: int) -> int:
        floor = max((one.position for one in self.log if one.run_id in self.archived), default=0)
        await self._meanwhile()
        return floor

    async def log_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[LogRecord]:
        rows = [one for one in self.log[after:] if one.run_id not in self.archived and one.position != self.lost]
        await self._meanwhile()
        return list(within(rows[:max_entries], lambda one: len(one.data), max_bytes))

    async def bytes_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> Sequence[bytes]:
        page = await self.log_page(partition, after, max_entries, 1 << 20)
        is_whole = len(consecutive(after, page)) == len(page) and sum(len(one.data) for one in page) <= max_bytes
        return [one.data for one in page] if is_whole else ()

    async def whole_page(self, partition: int, after: int, max_entries: int, max_bytes: int) -> list[Entry]:
        entries: list[Entry] = [
            ArchivedEntry(one.position, one.run_id, one.seq) if one.run_id in self.archived else one
            for one in self.log[after : after + max_entries]
            if one.position != self.lost
        ]
        await self._meanwhile()
        return entries

    async def find_all(self, run_ids: Sequence[str]) -> dict[str, Archived]:
        await self._meanwhile()
        assert set(run_ids) <= self.archived
        return {one: Archived(one, b"", len(self.lines[one]), one) for one in run_ids}


class FakeArchive:
    """Artifacts; those in `away` can't be had. Counts how many are fetched at a time."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self.away: set[str] = set()
        self.fetched: list[str] = []
        self.at_once = self.peak = 0

    async def read(self, archived: Archived) -> Spool:
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if archived.run_id in self.away:
            raise Refusal("unavailable", "away")
        self.fetched.append(archived.run_id)
        spool = Spool(archived.bytes)
        spool.write(self._database.lines[archived.run_id])
        return spool


class WatchedCache(ArtifactCache):
    """Asserts its limits whenever they might be passed."""

    def __init__(self, database: FakeDatabase, archive: FakeArchive, limits: ArtifactCacheLimits) -> None:
        super().__init__(database, archive, limits)
        self.most = 0

    async def _fetch(
        self, missing: Sequence[Archived], kept: OrderedDict[str, OpenArtifact]
    ) -> dict[str, OpenArtifact | Refusal]:
        made = await super()._fetch(missing, kept)
        size = sum(one.spool.size for one in self._kept.values())
        assert len(self._kept) == 1 or (len(self._kept) <= self._limits.artifacts and size <= self._limits.bytes)
        self.most = max(self.most, len(self._kept))
        return made


async def read_all(log: WholeLog, head: int, entries: int = 5, size: int = 1 << 20) -> list[LogRecord]:
    """From position 0 on, by pages."""
    found: list[LogRecord] = []
    while len(found) < head:
        page = await log.log_page(0, len(found), entries, size)
        assert page, "the log has not ended yet"
        assert len(page) <= entries
        assert len(page) == 1 or sum(len(one.data) for one in page) <= size
        found += page
    assert await log.log_page(0, head, entries, size) == ()
    return found


async def read_all_bytes(log: WholeLog, head: int, entries: int, size: int) -> list[bytes]:
    """The same, bytes alone."""
    found: list[bytes] = []
    while page := await log.bytes_page(0, len(found), entries, size):
        assert len(page) <= entries
        assert len(page) == 1 or sum(map(len, page)) <= size
        found += page
    assert len(found) == head
    return found


RUNS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40)
SCHEDULE = st.lists(st.sampled_from(["", "", "a", "b", "c", "d", "e", "f"]), max_size=30)


@given(
    runs=RUNS,
    archived=st.sets(st.sampled_from("abcdef")),
    schedule=SCHEDULE,
    limits=st.builds(
        ArtifactCacheLimits, artifacts=st.integers(1, 7), bytes=st.integers(0, 3000), fetches=st.integers(1, 3)
    ),
    entries=st.integers(1, 12),
    size=st.integers(1, 400),
)
@settings(deadline=None, max_examples=150)
def test_whatever_is_archived_when_the_log_is_what_it_was(
    runs: list[str], archived: set[str], schedule: list[str], limits: ArtifactCacheLimits, entries: int, size: int
) -> None:
    async def scenario() -> None:
        database = FakeDatabase(runs, [one for one in schedule if one in runs], archived & set(runs))
        archive = FakeArchive(database)
        log = WholeLog(database, database, WatchedCache(database, archive, limits))
        records, data = await asyncio.gather(
            read_all(log, len(runs), entries, size), read_all_bytes(log, len(runs), entries, size)
        )
        assert records == database.log
        assert data == [one.data for one in database.log]
        assert archive.peak <= limits.fetches

    asyncio.run(scenario())


@given(RUNS, st.sets(st.sampled_from("abcdef")), st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_a_lost_entry_is_refused_after_all_before_it_and_never_stepped_over(
    runs: list[str], archived: set[str], lost: int
) -> None:
    """The last one excepted: that one was never there, as far as anybody can tell who looks at rows."""

    async def scenario() -> None:
        database = FakeDatabase(runs, archived=archived & set(runs), lost=min(lost, len(runs) - 1))
        log = WholeLog(database, database, WatchedCache(database, FakeArchive(database), ArtifactCacheLimits()))
        found: list[LogRecord] = []
        while len(found) < database.lost - 1:
            found += await log.log_page(0, len(found), 5, 1 << 20)
        assert found == database.log[: database.lost - 1]
        with pytest.raises(Refusal) as caught:
            await log.log_page(0, len(found), 5, 1 << 20)
        assert caught.value.reason == "archive_damaged"
        assert caught.value.metadata == {"partition": "0", "position": str(database.lost)}

    if len(runs) > 1:
        asyncio.run(scenario())


async def test_artifacts_that_interleave_are_fetched_once_each() -> None:
    runs = [chr(ord("a") + position % 20) for position in range(2000)]
    database = FakeDatabase(runs, archived=set(runs))
    archive = FakeArchive(database)
    entries, fetches = value_of(metrics.ARCHIVED_ENTRIES_READ), value_of(metrics.ARTIFACT_CACHE_FETCHES)
    log = WholeLog(database, database, WatchedCache(database, archive, ArtifactCacheLimits()))
    assert await read_all(log, len(runs), entries=7) == database.log
    assert sorted(archive.fetched) == sorted(set(runs))
    assert value_of(metrics.ARCHIVED_ENTRIES_READ) == entries + len(runs)
    assert value_of(metrics.ARTIFACT_CACHE_FETCHES) == fetches + 20


async def test_the_artifact_used_longest_ago_makes_room() -> None:
    """Two by two: at the limit each is still fetched once, since those that are done with go first."""
    runs = list("abab" * 3 + "cdcd" * 3 + "efef" * 3)
    for limits, fetched in ((ArtifactCacheLimits(artifacts=2), 6), (ArtifactCacheLimits(artifacts=1), len(runs))):
        database = FakeDatabase(runs, archived=set(runs))
        archive = FakeArchive(database)
        cache = WatchedCache(database, archive, limits)
        assert await read_all(WholeLog(database, database, cache), len(runs), entries=3) == database.log
        assert len(archive.fetched) == fetched
        assert cache.most == limits.artifacts


async def test_only_so_many_are_fetched_at_a_time() -> None:
    runs = [chr(ord("a") + position) for position in range(20)]
    database = FakeDatabase(runs, archived=set(runs))
    archive = FakeArchive(database)
    log = WholeLog(database, database, WatchedCache(database, archive, ArtifactCacheLimits(fetches=3)))
    assert len(await log.log_page(0, 0, 100, 1 << 20)) == 20
    assert archive.peak == 3


async def test_an_artifact_that_is_away_holds_up_only_what_needs_it() -> None:
    failures = value_of(metrics.ARTIFACT_CACHE_FAILURES.labels("unavailable"))
    runs = list("xaxbxabx")
    database = FakeDatabase(runs, archived={"a", "b"})
    archive = FakeArchive(database)
    archive.away = {"b"}
    log = WholeLog(database, database, WatchedCache(database, archive, ArtifactCacheLimits()))
    assert await log.log_page(0, 0, 100, 1 << 20) == database.log[:1], "rows, as far as nobody knew of a floor"
    assert await log.log_page(0, 1, 100, 1 << 20) == database.log[1:3]
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            await log.log_page(0, 3, 100, 1 << 20)
        assert caught.value.reason == "unavailable"
    archive.away = set()
    assert await log.log_page(0, 3, 100, 1 << 20) == database.log[3:]
    assert archive.fetched == ["a", "b"]
    assert value_of(metrics.ARTIFACT_CACHE_FAILURES.labels("unavailable")) == failures + 3


async def test_a_reader_that_leaves_in_the_middle_of_a_fetch_leaves_the_cache_to_others() -> None:
    database = FakeDatabase("ab", archived={"a", "b"})
    log = WholeLog(database, database, WatchedCache(database, FakeArchive(database), ArtifactCacheLimits()))
    for turns in range(12):
        leaving = asyncio.create_task(log.log_page(0, 0, 100, 1 << 20))
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert await read_all(log, 2) == database.log


async def test_after_another_past_a_run_is_fetched_as_it_is_now() -> None:
    database = FakeDatabase("aab", archived={"a"})
    log = WholeLog(database, database, WatchedCache(database, FakeArchive(database), ArtifactCacheLimits()))
    assert await read_all(log, 3) == database.log
    other = FakeDatabase("aba", archived={"a"})
    database.log, database.lines = other.log, other.lines
    log.forget()
    assert await read_all(log, 3) == other.log


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_what_was_read_of_one_past_is_not_kept_in_another(is_kept: bool, turns: int) -> None:
    """The log gets another past while a page is made."""
    database = FakeDatabase("aab", archived={"a"})
    archive = FakeArchive(database)
    log = WholeLog(database, database, WatchedCache(database, archive, ArtifactCacheLimits()))
    await log.log_page(0, 0, 1, 1 << 20)  # the floor is known from now on
    if is_kept:
        await read_all(log, 3)
    archive.fetched.clear()
    reading = asyncio.create_task(log.log_page(0, 0, 100, 1 << 20))
    for _ in range(turns):
        await asyncio.sleep(0)
    other = FakeDatabase("aba", archived={"a"})
    database.log, database.lines = other.log, other.lines
    log.forget()
    for outcome in await asyncio.gather(reading, return_exceptions=True):
        assert isinstance(outcome, list | Refusal), outcome
    assert await read_all(log, 3) == other.log


async def test_a_line_that_is_not_the_events_is_damage() -> None:
    database = FakeDatabase("aab", archived={"a"})
    lines = database.lines["a"].splitlines(keepends=True)
    for damaged in (b"".join([lines[0], lines[2], lines[1], lines[3]]), lines[0] + lines[1], b"x\n" * 9, b""):
        database.lines["a"] = damaged
        log = WholeLog(database, database, WatchedCache(database, FakeArchive(database), ArtifactCacheLimits()))
        with pytest.raises(Refusal) as caught:
            await log.log_page(0, 0, 100, 1 << 20)
        assert (caught.value.reason, caught.value.metadata["run_id"]) == ("archive_damaged", "a")
