"""What a sequencer caches of its partitions, so that a batch can be decided without reading first. Pure.

A partition's head is the version of all that is in it: whatever changes a run of the partition moves its head, in the
same transaction. What was known at a head is therefore true for as long as that is the head, on the server that it was
known from. Another server that took its place may have lost what was known and have the same number again. So a head
is a number and the chain value there, and a batch that was decided from the cache says at which heads and on which
runs, by number and chain: the database stores it only if none of them has changed (`sql.STORE_BATCH`).

Idempotency keys are not cached: one that was used before is found by its unique index, and nothing is stored. So only
what is new to the log may be answered from the cache: `Decided.is_storable_unread` in `domain.batch`.

Times: `now_ns` is the database's clock, `tick_ns` a clock of this process that never goes back. Between two reads the
database's clock is taken to go on at the pace of ours, from when the answer came: never ahead of it but for drift,
which `max_age_ms` bounds. Whoever is overtaken by another process reads again and so gets that one's time too: times
in a partition don't run backwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Snapshot

_MS_NS = 1_000_000
MAX_CAUTION = 64
"""Maximum number of batches that a partition is read for, after it was found to be written by others too."""


@dataclass(slots=True)
class _Partition:
    """A partition at a head. `caution`: how many batches still read it first; `overtaken`: how many times in a row."""

    head: Head | None = None
    runs: OrderedDict[str, RunState] = field(default_factory=OrderedDict)
    caution: int = 0
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class CacheHit:
    """What a batch can be decided on: the heads of its partitions, and its runs as of them."""

    heads: Mapping[int, Head]
    snapshot: Snapshot


class LogCache:
    """The cache of one sequencer."""

    def __init__(self, max_runs: int, max_age_ms: int) -> None:
        self._max_runs = max_runs
        self._max_age_ns = max_age_ms * _MS_NS
        self._partitions: dict[int, _Partition] = {}
        self._runs = 0
        self._clock: tuple[int, int] | None = None
        self._log_epoch = ""

    def look_up(self, wanted: Mapping[str, int], numbers: Collection[int], tick_ns: int) -> CacheHit | None:
        """Runs (with their partitions) as last known; None unless all are, or when it is time to read again.

        `numbers`: the partitions of these and of what is new.
        """
        trusted = [self._trusts(number) for number in numbers]
        if not all(trusted):
            return None
        if self._clock is None or tick_ns - self._clock[1] > self._max_age_ns:
            return None
        runs: dict[str, RunState] = {}
        for run_id, number in wanted.items():
            known = self._partitions[number].runs
            if run_id not in known:
                return None
            known.move_to_end(run_id)
            runs[run_id] = known[run_id]
        now_ns = self._clock[0] + tick_ns - self._clock[1]
        heads = {number: head for number in numbers if (head := self._partitions[number].head) is not None}
        return CacheHit(heads, Snapshot(now_ns // 1000 * 1000, self._log_epoch, runs, {}, {}))

    def _trusts(self, number: int) -> bool:
        """Whether what is known of a partition may be used; each time that it may not, it is nearer to it."""
        partition = self._partitions.get(number)
        if partition is None:
            return False
        if partition.caution:
            partition.caution -= 1
            return False
        return True

    def clock(self, now_ns: int, tick_ns: int, log_epoch: str) -> None:
        """What the database's clock said and when that came, and the log's epoch."""
        self._clock = (now_ns, tick_ns)
        self._log_epoch = log_epoch

    def learn(
        self, before: Mapping[int, Head], after: Mapping[int, Head], runs: Iterable[tuple[RunState, int]]
    ) -> None:
        """What was committed: the heads that it was decided at, those that it moved, and its runs with partitions."""
        for number, head in before.items():
            partition = self._partition(number)
            if partition.head != head:
                self._drop(partition)
            partition.head = after.get(number, head)
        for run, number in runs:
            known = self._partitions[number].runs
            self._runs -= known.pop(run.run_id, None) is not None
            if not run.status.is_final:
                known[run.run_id] = run
                self._runs += 1
        self._shrink()

    def stored(self, partitions: Iterable[int]) -> None:
        """A batch that was decided from the cache was stored: nobody else writes these now."""
        for number in partitions:
            self._partition(number).overtaken = 0

    def overtaken(self, partitions: Iterable[int]) -> None:
        """It was not. Others write some of these partitions: read for a while, twice as long each time."""
        for number in partitions:
            partition = self._partition(number)
            self._drop(partition)
            partition.caution = min(1 << partition.overtaken, MAX_CAUTION)
            partition.overtaken += 1

    def clear(self) -> None:
        """Drop everything: it is not known what became of a batch, or on which server the next one is stored."""
        self._partitions.clear()
        self._runs = 0

    def _partition(self, number: int) -> _Partition:
        """What is known of a partition: nothing, if all was dropped while a batch was under way."""
        return self._partitions.setdefault(number, _Partition())

    def _drop(self, partition: _Partition) -> None:
        self._runs -= len(partition.runs)
        partition.runs.clear()

    def _shrink(self) -> None:
        """Drop the runs that were longest unused, where there are most of them."""
        while self._runs > self._max_runs:
            largest = max(self._partitions.values(), key=lambda one: len(one.runs))
            largest.runs.popitem(last=False)
            self._runs -= 1
