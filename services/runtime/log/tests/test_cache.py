"""What a sequencer remembers is true for as long as the heads are where it was known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_runlog.state import RunState, RunStatus
from services.runtime.authority.domain import Head
from services.runtime.log.domain.cache import MAX_CAUTION, LogCache

_SECOND_NS = 1_000_000_000
_PARTITIONS, _RUNS = 3, 7


def run(name: str, seq: int = 2, status: RunStatus = RunStatus.RUNNING) -> RunState:
    return RunState(name, "org_1", "usr_1", status, seq, b"c" * 32, 1)


def at(position: int, history: bytes = b"h") -> Head:
    return Head(position, history * 32)


def known(*runs: RunState, head: int = 5, max_runs: int = 10, max_age_ms: int = 1000) -> LogCache:
    """A cache of runs in partition 0, read at tick 0 when the database's clock said a second."""
    cache = LogCache(max_runs, max_age_ms)
    cache.clock(_SECOND_NS, 0, "epoch")
    cache.learn({0: at(head)}, {}, [(one, 0) for one in runs])
    return cache


def names(cache: LogCache, candidates: Iterable[str]) -> list[str]:
    return [name for name in candidates if cache.look_up({name: 0}, {0}, 0) is not None]


def test_what_was_learned_is_hit_at_its_head() -> None:
    hit = known(run("a"), run("b")).look_up({"a": 0, "b": 0}, {0}, 0)
    assert hit is not None
    assert (hit.heads, hit.snapshot.runs) == ({0: at(5)}, {"a": run("a"), "b": run("b")})
    assert (hit.snapshot.appends, hit.snapshot.creates) == ({}, {})


@pytest.mark.parametrize("wanted", [{"b": 0}, {"a": 0, "b": 0}, {"a": 0, "c": 1}])
def test_what_is_not_known_has_to_be_read(wanted: dict[str, int]) -> None:
    assert known(run("a")).look_up(wanted, set(wanted.values()), 0) is None


def test_another_head_than_remembered_ends_what_was_known_of_the_partition() -> None:
    cache = known(run("a"), run("b"))
    cache.learn({0: at(5)}, {0: at(8)}, [(run("a", 5), 0)])
    assert names(cache, "ab") == ["a", "b"]
    cache.learn({0: at(9)}, {0: at(10)}, [(run("a", 7), 0)])
    assert names(cache, "ab") == ["a"]


def test_the_same_number_of_another_history_is_another_head() -> None:
    cache = known(run("a"), run("b"))
    cache.learn({0: at(5, b"x")}, {0: at(6, b"x")}, [(run("b", 3), 0)])
    assert names(cache, "ab") == ["b"]


def test_a_run_that_has_ended_is_not_remembered() -> None:
    cache = known(run("a"))
    cache.learn({0: at(5)}, {0: at(6)}, [(run("a", 3, RunStatus.FAILED), 0)])
    assert names(cache, "a") == []


def test_the_runs_longest_unused_are_forgotten_first() -> None:
    cache = known(run("a"), run("b"), run("c"), max_runs=3)
    cache.look_up({"a": 0}, {0}, 0)
    cache.learn({0: at(5)}, {}, [(run("d"), 0)])
    assert names(cache, "abcd") == ["a", "c", "d"]


def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    assert names(known(run("a"), max_runs=0), "a") == []


def test_the_clock_goes_on_in_whole_microseconds_until_it_has_to_be_read() -> None:
    cache = known(run("a"), max_age_ms=2)
    hit = cache.look_up({"a": 0}, {0}, 1_234_567)
    assert hit is not None
    assert hit.snapshot.now_ns == _SECOND_NS + 1_234_000
    assert cache.look_up({"a": 0}, {0}, 2_000_000) is not None
    assert cache.look_up({"a": 0}, {0}, 2_000_001) is None


def test_a_partition_that_others_write_is_read_first_for_twice_as_long_each_time() -> None:
    cache = known(run("a"))
    for times in (1, 2, 4, 8, 16, 32, 64, MAX_CAUTION, MAX_CAUTION):
        cache.overtaken([0])
        for _ in range(times):
            cache.learn({0: at(5)}, {}, [(run("a"), 0)])
            assert cache.look_up({"a": 0}, {0}, 0) is None
        assert cache.look_up({"a": 0}, {0}, 0) is not None
    cache.stored([0])
    cache.overtaken([0])
    cache.learn({0: at(5)}, {}, [(run("a"), 0)])
    assert [cache.look_up({"a": 0}, {0}, 0) is None for _ in range(2)] == [True, False]


def test_forgetting_leaves_nothing() -> None:
    cache = known(run("a"))
    cache.clear()
    assert names(cache, "a") == []
    cache.learn({0: at(5)}, {}, [(run("a"), 0)])
    assert names(cache, "a") == ["a"]


def test_a_batch_may_be_under_way_while_all_is_forgotten() -> None:
    cache = known(run("a"))
    cache.clear()
    cache.stored([0])
    cache.learn({0: at(5)}, {0: at(6)}, [(run("a", 3), 0)])
    assert names(cache, "a") == ["a"]
    cache.clear()
    cache.overtaken([0])
    assert names(cache, "a") == []


@given(st.data())
def test_whenever_the_heads_hold_so_does_the_rest(data: st.DataObject) -> None:
    """Processes that decide from cache, or from what they read, on a log that stores only at the right heads."""
    heads = dict.fromkeys(range(_PARTITIONS), at(0))
    runs = {f"run{n}": (run(f"run{n}"), n % _PARTITIONS) for n in range(_RUNS)}
    processes = [LogCache(data.draw(st.integers(0, _RUNS)), 1000) for _ in range(3)]
    for cache in processes:
        cache.clock(_SECOND_NS, 0, "epoch")
    for _ in range(data.draw(st.integers(1, 40))):
        cache = data.draw(st.sampled_from(processes))
        chosen = data.draw(st.lists(st.sampled_from(sorted(runs)), min_size=1, unique=True))
        wanted = {name: runs[name][1] for name in chosen}
        hit = cache.look_up(wanted, set(wanted.values()), 0)
        if hit is not None and any(heads[number] != head for number, head in hit.heads.items()):
            cache.overtaken(hit.heads)
            continue
        before = {number: heads[number] for number in wanted.values()}
        states = {name: runs[name][0] for name in chosen}
        if hit is not None:
            assert (hit.heads, hit.snapshot.runs) == (before, states)
            cache.stored(before)
        written = data.draw(st.sets(st.sampled_from(chosen)) if hit is None else st.just(set(chosen)))
        for name in written:
            states[name] = replace(states[name], latest_seq=states[name].latest_seq + 1)
            runs[name] = (states[name], wanted[name])
            heads[wanted[name]] = at(heads[wanted[name]].position + 1)
        after = {number: heads[number] for number in before}
        cache.learn(before, after, [(states[name], wanted[name]) for name in chosen])
