"""Silence is counted only where a sign of life could have been recorded and seen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.workers.domain.vigil import SignOfLife, Stillness, Vigil

LOST, LATE, BEAT, LOOK = 30.0, 15.0, 10.0, 1.0


def sign(worker: str = "w", beat: int = 1, replica: str = "a", attachment: str = "att") -> SignOfLife:
    return SignOfLife(worker, attachment, beat, replica)


def vigil() -> Vigil:
    return Vigil(LOST, LATE, cancel_after_s=10)


def test_stillness_counts_from_the_last_change_that_was_seen() -> None:
    one: Stillness[str] = Stillness()
    one.look(0, {"a": 1, "b": 1})
    one.look(5, {"a": 2, "b": 1})
    assert (one.of("a", 7), one.of("b", 7), one.of("c", 7)) == (2, 7, 0)
    one.look(8, {"b": 1})
    one.look(9, {"a": 2, "b": 1})
    assert (one.of("a", 10), one.of("b", 10)) == (1, 10), "what was away begins anew"


def test_a_silent_worker_is_lost_at_the_limit_and_not_before() -> None:
    one = vigil()
    for second in range(30):
        assert one.silent(second, {"a": second}, [sign()]) == []
    assert one.silent(30, {"a": 30}, [sign()]) == [sign()]


@pytest.mark.parametrize("news", [sign(beat=2), sign(attachment="another")])
def test_any_sign_of_life_counts_whatever_time_it_names(news: SignOfLife) -> None:
    """A clock that was set back names an earlier time: it is another one, and that is all that counts."""
    one = vigil()
    for second in range(29):
        one.silent(second, {"a": second}, [sign(beat=1_000_000)])
    for second in range(29, 59):
        assert one.silent(second, {"a": second}, [news]) == []
    assert one.silent(59, {"a": 59}, [news]) == [news]


@pytest.mark.parametrize("gap", ["late", "failed"])
def test_who_did_not_look_in_time_gives_everybody_the_whole_limit(gap: str) -> None:
    one = vigil()
    for second in range(29):
        one.silent(second, {"a": second}, [sign()])
    again = 29 + (LATE if gap == "late" else 0)
    if gap == "failed":
        one.forget()
    assert one.silent(again, {"a": 99}, [sign()]) == []
    for second in range(1, 30):
        assert one.silent(again + second, {"a": 100 + second}, [sign()]) == []
    assert one.silent(again + 30, {"a": 200}, [sign()]) == [sign()]


def test_the_absence_of_a_replica_is_not_the_silence_of_its_workers() -> None:
    """It stands still for 36 s, and nobody could hear the worker; then it is back, and the worker with it."""
    one = vigil()
    for second in range(10):
        one.silent(second, {"a": second, "b": second}, [sign(replica="b")])
    for second in range(10, 46):
        assert one.silent(second, {"a": second, "b": 9}, [sign(replica="b")]) == []
    for second in range(46, 46 + 30):
        assert one.silent(second, {"a": second, "b": second}, [sign(replica="b")]) == []
    assert one.silent(76, {"a": 76, "b": 76}, [sign(replica="b")]) == [sign(replica="b")]


def test_a_worker_that_dies_with_its_replica_is_lost_after_twice_the_limit() -> None:
    one = vigil()
    for second in range(60):
        assert one.silent(second, {"a": second, "b": 1}, [sign(replica="b")]) == []
    assert one.silent(60, {"a": 60, "b": 1}, [sign(replica="b")]) == [sign(replica="b")]
    assert one.absent(60, {"a": 60, "b": 1}) == []
    one.silent(91, {"a": 60, "b": 1}, [])
    assert one.absent(91, ["a", "b"]) == [], "one look that came late proves nothing"


def test_a_replica_that_is_gone_for_good_is_forgotten() -> None:
    one = vigil()
    for second in range(92):
        one.silent(second, {"a": second, "b": 1}, [])
    assert one.absent(91, ["a", "b"]) == ["b"]


def test_a_cancel_is_due_when_it_was_seen_for_its_time() -> None:
    one = vigil()
    assert one.due(100, ["r"]) == []
    assert one.due(109.9, ["r", "s"]) == []
    assert one.due(110, ["r", "s"]) == ["r"]


@dataclass
class World:
    """Some replicas and workers on one database, second by second. Everything may freeze; workers may die."""

    chance: random.Random
    replicas: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    looks: dict[str, int] = field(default_factory=dict)
    frozen_until: dict[str, float] = field(default_factory=dict)
    signs: dict[str, SignOfLife] = field(default_factory=dict)
    died: dict[str, float] = field(default_factory=dict)
    beaten: dict[str, float] = field(default_factory=dict)

    def is_frozen(self, what: str, now: float) -> bool:
        return now < self.frozen_until.get(what, 0) or now < self.frozen_until.get("database", 0)

    def step(self, now: float) -> None:
        """Workers beat where they are attached, and attach elsewhere when they are not heard for 15 s (keepalive)."""
        for worker, last in self.signs.items():
            if worker in self.died or self.is_frozen("database", now):
                continue
            if not self.is_frozen(last.replica_id, now):
                if now - self.beaten[worker] >= BEAT:
                    # The clock may step: what it says is no more than another mark.
                    self.signs[worker] = last._replace(beat=self.chance.randrange(1 << 60))
                    self.beaten[worker] = now
            elif now - self.beaten[worker] >= BEAT + LATE:
                others = [one for one in self.replicas if not self.is_frozen(one, now)]
                if others:
                    attached = last._replace(replica_id=self.chance.choice(others), attachment=f"at {now}")
                    self.signs[worker], self.beaten[worker] = attached, now


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_freezes_no_living_worker_is_lost_and_every_dead_one_is(seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance)
    vigils = {one: vigil() for one in world.replicas}
    for number in range(4):
        world.signs[f"w{number}"] = sign(f"w{number}", 0, chance.choice(world.replicas))
        world.beaten[f"w{number}"] = 0.0
    world.died["w0"] = chance.uniform(0, 200)
    died, world.died = world.died["w0"], {}
    lost: dict[str, float] = {}
    calm_from = 300.0
    for second in range(500):
        now = float(second)
        if now >= died:
            world.died["w0"] = died
        if now < calm_from and chance.random() < 0.02:
            what = chance.choice([*world.replicas, "database"])
            world.frozen_until[what] = min(now + chance.uniform(1, 100), calm_from)
        world.step(now)
        for one in world.replicas:
            if world.is_frozen(one, now):
                if world.is_frozen("database", now):
                    vigils[one].forget()  # its look fails
                continue
            world.looks[one] = world.looks.get(one, 0) + 1
            for silent in vigils[one].silent(now, world.looks, list(world.signs.values())):
                lost.setdefault(silent.worker_id, now)
                world.signs.pop(silent.worker_id, None)
    assert set(lost) == {"w0"}, "a worker that lives is not lost"
    # Its last sign is older than one pause between heartbeats if its replica had just begun to stand still.
    assert died + LOST - BEAT - LATE - LOOK <= lost["w0"] <= max(died, calm_from) + 3 * LOST + 2 * LOOK
