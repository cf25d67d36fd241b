"""Silence is counted only where a sign of life could have been recorded and seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.workers.domain.vigil import Loss, LossCause, Presence, SignOfLife, Stillness, Vigil

LOST, LATE, ABSENT = 30.0, 15.0, 7.5


def sign(worker: str = "w", beat: int = 1, replica: str = "a", attachment: str = "att") -> SignOfLife:
    return SignOfLife(worker, attachment, beat, replica)


def vigil() -> Vigil:
    return Vigil(LOST, late_after_s=LATE, absent_after_s=ABSENT, cancel_after_s=10)


def silent(sign: SignOfLife) -> list[Loss]:
    return [Loss(sign, LossCause.SILENT)]


def test_stillness_counts_from_the_last_change_that_was_seen() -> None:
    one: Stillness[str] = Stillness()
    one.look(0, {"a": 1, "b": 1})
    one.look(5, {"a": 2, "b": 1})
    assert (one.of("a", 7), one.of("b", 7), one.of("c", 7)) == (2, 7, 0)
    one.look(8, {"b": 1})
    one.look(9, {"a": 2, "b": 1})
    assert (one.of("a", 10), one.of("b", 10)) == (1, 10), "what was away begins anew"


def test_a_silent_worker_is_lost_at_the_limit_and_not_before() -> None:
    """The limit begins when a replica was seen to accept workers: that takes two looks."""
    one = vigil()
    for second in range(31):
        assert one.lost(second, {"a": second}, [sign()]) == []
    assert one.lost(31, {"a": 31}, [sign()]) == silent(sign())


@pytest.mark.parametrize("news", [sign(beat=2), sign(attachment="another")])
def test_any_sign_of_life_counts_whatever_time_it_names(news: SignOfLife) -> None:
    """A clock that was set back names an earlier time: it is another one, and that is all that counts."""
    one = vigil()
    for second in range(29):
        one.lost(second, {"a": second}, [sign(beat=1_000_000)])
    for second in range(29, 59):
        assert one.lost(second, {"a": second}, [news]) == []
    assert one.lost(59, {"a": 59}, [news]) == silent(news)


@pytest.mark.parametrize("gap", ["late", "failed"])
def test_who_did_not_look_in_time_gives_everybody_the_whole_limit(gap: str) -> None:
    one = vigil()
    for second in range(29):
        one.lost(second, {"a": second}, [sign()])
    again = 29 + (LATE if gap == "late" else 0)
    if gap == "failed":
        one.forget()
    for second in range(31):
        assert one.lost(again + second, {"a": 100 + second}, [sign()]) == []
    assert one.lost(again + 31, {"a": 200}, [sign()]) == silent(sign())


def test_nobody_is_lost_while_nobody_accepts_workers() -> None:
    """A replica looks for a minute before it is ready, as one does that waits for keys."""
    one = vigil()
    for second in range(60):
        assert one.lost(second, {"before": 7}, [sign(replica="before")]) == []
    for second in range(60):
        counts = {"before": 7, "a": second}
        assert one.lost(60 + second, counts, [sign(replica="before")]) == []
    assert one.lost(120, {"before": 7, "a": 60}, [sign(replica="before")]) == [
        Loss(sign(replica="before"), LossCause.NOT_BACK)
    ]


def test_a_pause_of_all_replicas_gives_everybody_the_whole_limit() -> None:
    """Whoever looks goes on looking: it is alive, and takes no workers."""
    one = vigil()
    for second in range(25):
        one.lost(second, {"a": second}, [sign()])
    for second in range(25, 33):
        assert one.lost(second, {"a": 24}, [sign()]) == []
    for second in range(33, 33 + 30):
        assert one.lost(second, {"a": second}, [sign()]) == []
    assert one.lost(63, {"a": 63}, [sign()]) == silent(sign())


def test_one_replica_that_accepts_workers_is_enough() -> None:
    one = vigil()
    for second in range(31):
        assert one.lost(second, {"a": 0, "b": second}, [sign(replica="b")]) == []
    assert one.lost(31, {"a": 0, "b": 31}, [sign(replica="b")]) == silent(sign(replica="b"))


@given(
    counts=st.lists(st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)), max_size=30),
    pause_s=st.floats(0.1, 20),
)
def test_the_authority_is_present_only_on_evidence(counts: list[dict[str, int]], pause_s: float) -> None:
    """It is as late as the last look that differed from the one before it, if that was less than `ABSENT` ago."""
    presence = Presence(ABSENT)
    for number, count in enumerate(counts):
        now_s = number * pause_s
        moves = [
            other * pause_s
            for other in range(1, number + 1)
            if any(counts[other - 1].get(replica) != value for replica, value in counts[other].items())
        ]
        is_present = bool(moves) and now_s - moves[-1] < ABSENT
        assert presence.look(now_s, count) == (moves[-1] if is_present else None)
    presence.forget()
    assert presence.look(1_000, {"a": 9, "b": 9}) is None


def test_the_absence_of_a_replica_is_not_the_silence_of_its_workers() -> None:
    """It stands still for 36 s, and nobody could hear the worker; then it is back, and the worker with it."""
    one = vigil()
    for second in range(10):
        one.lost(second, {"a": second, "b": second}, [sign(replica="b")])
    for second in range(10, 46):
        assert one.lost(second, {"a": second, "b": 9}, [sign(replica="b")]) == []
    for second in range(46, 46 + 30):
        assert one.lost(second, {"a": second, "b": second}, [sign(replica="b")]) == []
    assert one.lost(76, {"a": 76, "b": 76}, [sign(replica="b")]) == silent(sign(replica="b"))


def test_a_worker_that_dies_with_its_replica_is_lost_after_twice_the_limit() -> None:
    one = vigil()
    for second in range(61):
        assert one.lost(second, {"a": second, "b": 1}, [sign(replica="b")]) == []
    assert one.lost(61, {"a": 61, "b": 1}, [sign(replica="b")]) == [Loss(sign(replica="b"), LossCause.NOT_BACK)]
    assert one.absent(61, {"a": 61, "b": 1}) == []
    one.lost(91, {"a": 61, "b": 1}, [])
    assert one.absent(91, ["a", "b"]) == [], "one look that came late proves nothing"


def test_a_replica_that_is_gone_for_good_is_forgotten() -> None:
    one = vigil()
    for second in range(92):
        one.lost(second, {"a": second, "b": 1}, [])
    assert one.absent(91, ["a", "b"]) == ["b"]


def test_a_cancel_is_due_when_it_was_seen_for_its_time() -> None:
    one = vigil()
    assert one.due(100, ["r"]) == []
    assert one.due(109.9, ["r", "s"]) == []
    assert one.due(110, ["r", "s"]) == ["r"]
