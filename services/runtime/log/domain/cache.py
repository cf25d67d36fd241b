"""A sequencer's cache of its partitions, from which a batch can be decided without reading first. Pure.

A partition's head is the version of everything in the partition: each change to one of its runs moves the head in the
same transaction. State that is known at a head is therefore valid for as long as that is the head, on the server that
it came from. Another server that takes its place may have lost this state and have the same number again. So a head is
a number and the chain value there, and a batch that was decided from the cache states its heads and its runs, by number
and chain. The database stores it only if none of them has changed (`sql.STORE_BATCH`).

Idempotency keys are not cached: the unique index finds one that was used before, and nothing is stored. So only
commands that are new to the log may be answered from the cache: see `Decided.is_storable_unread` in `domain.batch`.

Times: `now_ns` is the database's clock, `tick_ns` a clock of this process that never goes back. Between two reads, the
database's clock is assumed to advance at the pace of ours, from when the answer came. The assumed time is never ahead
of it except by drift, which `max_age_ms` bounds. A sequencer that is overtaken by another process reads again and so
gets that process's time, too: times in a partition don't run backwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from oa_base.clock import MS_NS
from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Snapshot

MAX_CAUTION = 64
"""Maximum number of batches for which a partition is read, after others were found to write it too."""


@dataclass(slots=True)
class _Partition:
    """A partition at a head. `caution`: how many batches still read it first; `overtaken`: how many times in a row."""

    head: Head | None = None
    runs: OrderedDict[str, RunState] = field(default_factory=OrderedDict)
    caution: int = 0
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The state on which a batch can be decided: the heads of its partitions, and its runs as of these heads."""

    heads: Mapping[int, Head]
    snapshot: Snapshot


class LogCache:
    """The cache of one sequencer."""

    def __init__(self, max_runs: int, max_age_ms: int) -> None:
        self._max_runs = max_runs
        self._max_age_ns = max_age_ms * MS_NS
        self._partitions: dict[int, _Partition] = {}
        self._runs = 0
        self._clock: tuple[int, int] | None = None
        self._log_epoch = ""

    def look_up(self, wanted: Mapping[str, int], numbers: Collection[int], tick_ns: int) -> CacheHit | None:
        """Return the wanted runs as last known; None unless all are, or when it is time to read again.

        `wanted`: run -> its partition. `numbers`: the partitions of these runs and of new ones.
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
        """Whether the cached state of a partition may be used. Each refusal of a cached one lowers its caution."""
        partition = self._partitions.get(number)
        if partition is None:
            return False
        if partition.caution:
            partition.caution -= 1
            return False
        return True

    def clock(self, now_ns: int, tick_ns: int, log_epoch: str) -> None:
        """Note what the database's clock said, when that arrived, and the log's epoch."""
        self._clock = (now_ns, tick_ns)
        self._log_epoch = log_epoch

    def learn(
        self, before: Mapping[int, Head], after: Mapping[int, Head], runs: Iterable[tuple[RunState, int]]
    ) -> None:
        """Note a commit: the heads that it was decided at, those that it moved, and its runs with partitions."""
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
        """Note that a batch decided from the cache was stored: nobody else writes these partitions now."""
        for number in partitions:
            self._partition(number).overtaken = 0

    def overtaken(self, partitions: Iterable[int]) -> None:
        """Note that a batch was not stored: others write some of these. Read for a while, twice as long each time."""
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
        """Return the cached state of a partition, empty if all was dropped while a batch was under way."""
        return self._partitions.setdefault(number, _Partition())

    def _drop(self, partition: _Partition) -> None:
        self._runs -= len(partition.runs)
        partition.runs.clear()

    def _shrink(self) -> None:
        """Drop the least recently used runs of the partitions that have the most."""
        while self._runs > self._max_runs:
            fullest = max(self._partitions.values(), key=lambda one: len(one.runs))
            fullest.runs.popitem(last=False)
            self._runs -= 1
