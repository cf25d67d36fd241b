"""Watermark stores: state and cursor move together, or not at all."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.core.store import Element, MemoryStore, StoreMoved, WatermarkStore
from oa_client.cpython import sqlite_store
from oa_client.cpython.sqlite_store import _MIGRATIONS, SqliteStore
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor

TOPIC = "run:run_01JD8V0000000000000000000A:events"
OTHER = "run:run_01JD8V0000000000000000000B:events"
Stores = Callable[[], WatermarkStore]


def event(seq: int, topic: str = TOPIC, epoch: str = "e1", payload: bytes | None = None) -> Apply:
    return Apply(topic, Cursor(epoch, seq), payload if payload is not None else f"event {seq}".encode(), 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client" / "watermarks.sqlite3"


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[WatermarkStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = SqliteStore(path, "usr/org/dev")
    yield opened
    opened.close()


def seqs(store: WatermarkStore, topic: str = TOPIC) -> list[int]:
    return [element.seq for element in store.elements(topic)]


def test_elements_and_cursor_are_stored_per_topic(store: WatermarkStore) -> None:
    assert store.cursor(TOPIC) is None
    store.apply([event(1), event(1, OTHER), event(2)])
    assert (store.cursor(TOPIC), store.cursor(OTHER)) == (Cursor("e1", 2), Cursor("e1", 1))
    assert list(store.elements(TOPIC, after_seq=1)) == [Element(2, b"event 2")]


def test_a_repetition_is_left_as_it_is(store: WatermarkStore) -> None:
    store.apply([event(1), event(2)])
    store.apply([event(1, payload=b"other"), event(2, payload=b"other"), event(3)])
    assert [element.payload for element in store.elements(TOPIC)] == [b"event 1", b"event 2", b"event 3"]


@pytest.mark.parametrize("misfit", [event(4), event(3, epoch="e2")], ids=["hole", "epoch"])
def test_what_does_not_fit_spoils_its_whole_batch(store: WatermarkStore, misfit: Apply) -> None:
    store.apply([event(1)])
    with pytest.raises(StoreMoved) as caught:
        store.apply([event(2), event(1, OTHER), misfit])
    assert caught.value.topic == TOPIC
    assert seqs(store) == [1]
    assert store.cursor(TOPIC) == Cursor("e1", 1)
    assert store.cursor(OTHER) is None


def test_a_topic_whose_floor_has_moved_starts_there(store: WatermarkStore) -> None:
    store.apply([event(41), event(42)])
    assert seqs(store) == [41, 42]


def test_a_snapshot_replaces_the_state_whatever_its_epoch(store: WatermarkStore) -> None:
    store.apply([event(1), event(2)])
    store.apply([Apply(TOPIC, Cursor("e2", 9), b"state", 1, snapshot=True), event(10, epoch="e2")])
    assert list(store.elements(TOPIC)) == [Element(9, b"state", snapshot=True), Element(10, b"event 10")]
    assert store.cursor(TOPIC) == Cursor("e2", 10)


def test_drop_forgets_one_topic(store: WatermarkStore) -> None:
    store.apply([event(1), event(1, OTHER)])
    store.drop(TOPIC)
    assert (store.cursor(TOPIC), seqs(store), seqs(store, OTHER)) == (None, [], [1])


def test_drop_at_a_cursor_leaves_what_another_process_has_put_there(store: WatermarkStore) -> None:
    store.apply([event(1), event(2)])
    assert not store.drop(TOPIC, at=Cursor("e1", 1))
    assert seqs(store) == [1, 2]
    assert store.drop(TOPIC, at=Cursor("e1", 2))
    assert (store.cursor(TOPIC), seqs(store)) == (None, [])


def test_a_topic_that_was_held_and_is_empty_does_not_begin_in_its_middle(store: WatermarkStore) -> None:
    with pytest.raises(StoreMoved) as caught:
        store.apply([event(1, OTHER), event(41)], held={TOPIC})
    assert (caught.value.topic, caught.value.cursor) == (TOPIC, None)
    assert (seqs(store), seqs(store, OTHER)) == ([], [])


def test_a_long_topic_is_read_whole(store: WatermarkStore) -> None:
    store.apply([event(seq) for seq in range(1, 1702)])
    assert seqs(store) == list(range(1, 1702))


def test_namespaces_do_not_see_each_other(path: Path) -> None:
    mine, theirs = SqliteStore(path, "a/o/d"), SqliteStore(path, "b/o/d")
    mine.apply([event(1)])
    assert theirs.cursor(TOPIC) is None
    theirs.apply([event(1), event(2)])
    theirs.drop(TOPIC)
    assert seqs(mine) == [1]
    mine.close()
    theirs.close()


def test_what_was_applied_survives_and_is_private(path: Path) -> None:
    first = SqliteStore(path, "a/o/d")
    first.apply([event(1)])
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    second = SqliteStore(path, "a/o/d")
    assert second.cursor(TOPIC) == Cursor("e1", 1)
    second.close()


def bound(seq: int, chain: bytes, follows: bytes) -> Apply:
    return Apply(TOPIC, Cursor("e1", seq, chain), b"event", 1, follows=follows)


def test_a_cursor_keeps_its_chain(store: WatermarkStore) -> None:
    store.apply([bound(1, b"A", b"0"), bound(2, b"AB", b"A")])
    assert store.cursor(TOPIC) == Cursor("e1", 2, b"AB")


@pytest.mark.parametrize(
    "other",
    [bound(2, b"AX", b"A"), bound(3, b"AXY", b"AX")],
    ids=["other content at the same seq", "the next one of other content"],
)
def test_other_content_under_the_same_numbers_does_not_fit(store: WatermarkStore, other: Apply) -> None:
    store.apply([bound(1, b"A", b"0"), bound(2, b"AB", b"A")])
    with pytest.raises(StoreMoved) as caught:
        store.apply([other])
    assert caught.value.cursor == Cursor("e1", 2, b"AB")
    store.apply([bound(1, b"?", b"?"), bound(2, b"AB", b"A"), bound(3, b"ABC", b"AB")])
    assert seqs(store) == [1, 2, 3]


def test_a_file_of_the_first_version_goes_on_without_chains(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as first:
        first.executescript(_MIGRATIONS[0] + "PRAGMA user_version = 1;")
        first.execute("INSERT INTO watermarks VALUES ('a/o/d', ?, 'e1', 1)", (TOPIC,))
        first.execute("INSERT INTO elements VALUES ('a/o/d', ?, 1, 0, x'00')", (TOPIC,))
    first.close()
    store = SqliteStore(path, "a/o/d")
    assert store.cursor(TOPIC) == Cursor("e1", 1)
    store.apply([event(2)])
    assert seqs(store) == [1, 2]
    store.close()
    SqliteStore(path, "a/o/d").close()


def test_two_processes_apply_the_same_events_once(path: Path) -> None:
    one, two = SqliteStore(path, "a/o/d"), SqliteStore(path, "a/o/d")
    one.apply([event(1), event(2)])
    two.apply([event(1), event(2), event(3)])
    one.apply([event(3), event(4)])
    assert seqs(two) == [1, 2, 3, 4]
    one.close()
    two.close()


def test_a_failure_in_the_middle_leaves_neither_element_nor_cursor(path: Path) -> None:
    """The write of the watermark fails (a trigger stands for a full disk): its element must not stay either."""
    store = SqliteStore(path, "a/o/d")
    store.apply([event(1)])
    with sqlite3.connect(path) as saboteur:
        saboteur.execute(
            "CREATE TRIGGER full BEFORE INSERT ON watermarks WHEN NEW.applied_seq = 3 "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    saboteur.close()
    with pytest.raises(Refusal) as caught:
        store.apply([event(2), event(3)])
    assert "disk full" in caught.value.message
    assert (seqs(store), store.cursor(TOPIC)) == ([1], Cursor("e1", 1))
    store.apply([event(2)])
    assert (seqs(store), store.cursor(TOPIC)) == ([1, 2], Cursor("e1", 2))
    store.close()


def test_a_damaged_file_is_refused_with_its_name(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(Refusal) as caught:
        SqliteStore(path, "a/o/d")
    assert caught.value.reason == "invalid_setting"
    assert str(path) in caught.value.message


def test_damage_that_a_read_finds_is_refused_with_its_name(path: Path) -> None:
    """The file opens, because its first page is whole."""
    with closing(SqliteStore(path, "a/o/d")) as store:
        store.apply([event(seq, payload=bytes(2_000)) for seq in range(1, 100)])
    whole = path.read_bytes()
    page = int.from_bytes(whole[16:18], "big")
    path.write_bytes(whole[:page] + b"\xff" * (len(whole) - page))
    with closing(SqliteStore(path, "a/o/d")) as store:
        for read in (lambda: store.cursor(TOPIC), lambda: seqs(store), lambda: store.apply([event(100)])):
            with pytest.raises(Refusal, match="it may be moved away") as caught:
                read()
            assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_CLIENT_HOME")
            assert str(path) in caught.value.message


def test_a_disk_that_takes_no_more_is_named(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(SqliteStore(path, "a/o/d")) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
        try:
            with pytest.raises(Refusal, match="see whether its disk is full or broken") as caught:
                store.apply([event(1, payload=b"x" * 1_000_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_CLIENT_HOME")
        store.apply([event(1)])


def test_a_file_that_another_program_holds_is_not_called_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_S", 0.01)
    with closing(SqliteStore(path, "a/o/d")) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refusal, match="another program holds it; try again"):
            store.apply([event(1)])


def test_a_store_that_is_closed_is_refused_with_its_name(path: Path) -> None:
    store = SqliteStore(path, "a/o/d")
    store.close()
    for use in (lambda: store.apply([event(1)]), lambda: store.cursor(TOPIC), lambda: seqs(store)):
        with pytest.raises(Refusal) as caught:
            use()
        assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_CLIENT_HOME")
        assert str(path) in caught.value.message


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    SqliteStore(path, "a/o/d").close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(Refusal) as caught:
        SqliteStore(path, "a/o/d")
    assert caught.value.reason == "invalid_setting"
