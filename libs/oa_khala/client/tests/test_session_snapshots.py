"""The client session, command by command: topics that begin with a snapshot."""

from oa_khala import frames
from oa_khala.client.commands import Apply, Chains, Instant, Resync, Send
from oa_khala.client.tests.driver import Driver, T
from oa_khala.client.tests.transcripts import Concatenated
from oa_khala.frames import Cursor, Plan


def test_a_snapshot_replaces_the_state_and_events_go_on_behind_it() -> None:
    driver = Driver(T, cursor=Cursor("e1", 2)).open(T)
    assert driver.frame(frames.Subscribed(T, "e2", 5, 12, Plan.SNAPSHOT, 10))[0] == Resync(T, "epoch_mismatch")
    driver.frame(frames.Subscribed(T, "e2", 5, 12, Plan.SNAPSHOT, 10))
    assert driver.session.cursor(T) is None, "an announced snapshot that never comes must not become a cursor"
    assert driver.events(11) == []
    assert driver.frame(frames.Snapshot(T, 10, b"all")) == [Apply(T, Cursor("e2", 10), b"all", 1, snapshot=True)]
    assert driver.events(11) == [10, 11]


def taking_snapshots(chains: Chains | None = None) -> Driver:
    driver = Driver(chains=chains)
    driver.session.subscribe(T, None, Instant(0, 0.5), True)
    return driver.open(T)


def part(number: int, parts: int = 3, seq: int = 10) -> frames.Snapshot:
    return frames.Snapshot(T, seq, b"-%d" % number, part=number, parts=parts)


def test_a_run_begins_with_a_snapshot_in_parts_and_goes_on_with_its_chain() -> None:
    driver = taking_snapshots(Concatenated())
    driver.frame(frames.Subscribed(T, "e1", 0, 11, Plan.SNAPSHOT, 10, b"chain at 10 "))
    assert [driver.frame(part(1)), driver.frame(part(2))] == [[], []], "nothing counts before the last part"
    assert driver.session.cursor(T) is None
    assert driver.frame(part(3)) == [Apply(T, Cursor("e1", 10, b"chain at 10 "), b"-1-2-3", 1, snapshot=True)]
    assert driver.events(11) == [10, 11]
    driver.cut()
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, Cursor("e1", 11, b"chain at 10 11")),), (T,))], "it still takes them"


def test_parts_that_a_broken_connection_has_brought_count_for_nothing() -> None:
    driver = taking_snapshots()
    driver.frame(frames.Subscribed(T, "e1", 0, 10, Plan.SNAPSHOT, 10))
    driver.frame(part(1))
    driver.cut()
    driver.do("connected", driver.session.generation)
    driver.welcome()
    assert driver.sent() == [frames.Subscribe(((T, None),), (T,))]
    driver.frame(frames.Subscribed(T, "e1", 0, 12, Plan.SNAPSHOT, 12))
    assert [len(driver.frame(part(number, 2, 12))) for number in (1, 2)] == [0, 1]
    assert driver.applied[0].payload == b"-1-2"


def test_a_snapshot_of_another_seq_than_was_announced_is_not_taken() -> None:
    driver = Driver(T).open(T)
    driver.frame(frames.Subscribed(T, "e1", 5, 12, Plan.SNAPSHOT, 10))
    assert driver.frame(frames.Snapshot(T, 9, b"all")) == [Send(1, frames.Subscribe(((T, None),)))]
