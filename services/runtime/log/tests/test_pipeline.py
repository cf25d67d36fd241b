"""Whatever is refused for now, and however it is sent again: the order of the log is the order of sending."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.catalogue import ClientAction, all_reasons, reason_info
from oa_base.refusal import Refusal
from oa_runlog.authority.commands import Append, AssignRun, CreateRun
from oa_runlog.authority.decide import KnownKey
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import ExecSpec, RunSpec, TextDelta, TextStream
from oa_runlog.state import RunState
from services.runtime.authority.domain import Head
from services.runtime.log.domain.batch import Answer, Batch, Snapshot
from services.runtime.log.domain.pipeline import Pipeline, Place, out_of_order

ORG, USER, WORKER = "org_1", "usr_1", "wrk_1"
RUN_ID = "run_01JD0000000000000000000000"
LIMITS = RunLimits(events_per_second=1_000_000, burst_events=1_000_000)
FOR_NOW = Refusal("unavailable", "the database is away")
FOR_GOOD = Refusal("payload_too_large", "too large")
STORED = object()


def pipeline(*answers: tuple[str, object]) -> Pipeline:
    """A pipeline on which these keys were sent and answered, in order."""
    made = Pipeline(8)
    places = [made.place(key) for key, _ in answers]
    for place, (_, answer) in zip(places, answers, strict=True):
        made.answered(place, answer)
    return made


def awaited(made: Pipeline, key: str) -> str:
    return made.awaited(made.place(key))


# ------------------------------------------------------------------------------------------------- one by one


def test_what_was_sent_after_a_refusal_waits_for_what_was_refused() -> None:
    made = pipeline(("a", FOR_NOW))
    assert awaited(made, "b") == "a"
    again = made.place("a")
    assert made.awaited(again) == ""
    made.answered(again, STORED)
    assert awaited(made, "b") == ""


def test_what_was_refused_comes_again_in_the_order_of_its_first_sending() -> None:
    made = pipeline(("a", FOR_NOW), ("b", out_of_order("a")), ("c", out_of_order("a")))
    assert [awaited(made, key) for key in "cbad"] == ["a", "a", "", "a"]
    made.answered(made.place("a"), STORED)
    assert [awaited(made, key) for key in "cbd"] == ["b", "", "b"]


def test_refused_again_it_keeps_its_place() -> None:
    made = pipeline(("a", FOR_NOW), ("b", out_of_order("a")))
    made.answered(made.place("a"), FOR_NOW)
    assert [awaited(made, key) for key in "ba"] == ["a", ""]


def test_a_later_one_that_is_refused_first_holds_back_no_earlier_one() -> None:
    """The queue was full when it came; what it came after was decided only then."""
    made = Pipeline(8)
    first, second = made.place("a"), made.place("b")
    made.answered(second, Refusal("overloaded", "full"))
    assert made.awaited(first) == ""
    made.answered(first, FOR_NOW)
    assert [awaited(made, key) for key in "ba"] == ["a", ""]


@pytest.mark.parametrize("reason", sorted(info.reason for info in all_reasons()))
def test_only_what_may_be_sent_again_as_it_is_holds_others_back(reason: str) -> None:
    made = pipeline(("a", Refusal(reason, "no")))
    is_for_now = reason_info(reason).action is ClientAction.RETRY
    assert awaited(made, "b") == ("a" if is_for_now else "")


def test_so_many_keys_are_remembered() -> None:
    made = Pipeline(2)
    for key in "abc":
        made.answered(made.place(key), FOR_NOW)
    for key in "ab":
        assert awaited(made, "c") == key
        made.answered(made.place(key), STORED)
    assert awaited(made, "d") == "", "c was one too many to be remembered"


# ------------------------------------------------------------------------------------------------- in a batch


def started_run() -> RunState:
    """A run that WORKER holds with epoch 1."""
    batch = Batch({0: Head(0, b"")}, Snapshot(1, "log_1", {}, {}, {}), LIMITS)
    batch.apply(CreateRun.of(RUN_ID, ORG, USER, RunSpec("exec", ExecSpec(("true",))), "k"), 0)
    batch.apply(AssignRun(RUN_ID, WORKER), 0)
    return batch.runs[RUN_ID]


RUN = started_run()


def append(key: str, count: int = 1) -> Append:
    return Append.of(RUN_ID, ORG, WORKER, 1, key, [TextDelta(TextStream.STDOUT, key.encode())] * count)


def apply(batch: Batch, command: Append, place: Place | None) -> Answer:
    answer = batch.apply(command, 0, place)
    if place is not None:
        batch.answered(place, answer)
    return answer


def a_batch(limits: RunLimits, known: dict[tuple[str, str], KnownKey] | None = None, state: RunState = RUN) -> Batch:
    snapshot = Snapshot(10**18, "log_1", {RUN_ID: state}, known or {}, {})
    return Batch({0: Head(2, b"")}, snapshot, limits)


def reason_of(answer: Answer) -> str:
    return answer.reason if isinstance(answer, Refusal) else ""


def test_a_fast_run_is_not_overtaken_by_its_smaller_appends() -> None:
    batch, made = a_batch(RunLimits(events_per_second=1, burst_events=10)), Pipeline(8)
    sizes = {"a": 8, "b": 5, "c": 1}
    answers = [apply(batch, append(key, size), made.place(key)) for key, size in sizes.items()]
    assert [reason_of(answer) for answer in answers] == ["", "publish_rate_limited", "append_out_of_order"]
    assert isinstance(answers[2], Refusal)
    assert answers[2].metadata == {"resend_from": "b"}


def test_without_a_place_nothing_is_held_back() -> None:
    """Appends outside of a stream have no order."""
    batch = a_batch(RunLimits(events_per_second=1, burst_events=10))
    answers = [apply(batch, append(key, size), None) for key, size in {"a": 8, "b": 5, "c": 1}.items()]
    assert [reason_of(answer) for answer in answers] == ["", "publish_rate_limited", ""]


def test_a_batch_that_fails_leaves_the_pipeline_as_it_was() -> None:
    made = Pipeline(8)
    for _ in range(2):
        batch = a_batch(RunLimits(events_per_second=1, burst_events=10))
        answers = [apply(batch, append(key, 8), made.place(key)) for key in "ab"]
        assert [reason_of(answer) for answer in answers] == ["", "publish_rate_limited"]
    assert awaited(made, "c") == ""


def test_what_is_stored_already_is_answered_like_the_first_time_whatever_waits() -> None:
    made = pipeline(("a", FOR_NOW))
    known = {(RUN_ID, "b"): KnownKey(RUN_ID, append("b").fingerprint, 3, 1)}
    assert reason_of(apply(a_batch(LIMITS, known), append("b"), made.place("b"))) == ""


# ------------------------------------------------------------------------------------------------- by chance

WINDOW = 6
APPENDS = 14


@dataclass
class World:
    """A sender, a stream, and an authority that fails by chance. `in_order`: how the sender sends again."""

    chance: random.Random
    in_order: bool
    state: RunState = RUN
    known: dict[tuple[str, str], KnownKey] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(WINDOW))
    queues: list[deque[tuple[str, Place]]] = field(default_factory=lambda: [deque(), deque()])
    """What waits for its turn at each of two replicas."""
    replica: int = 0
    """Where the stream is."""
    under_way: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    next: int = 0
    trouble: float = 0.3

    def run(self) -> None:
        for step in range(10_000):
            if step > 300:
                self.trouble = 0.02
            if len(self.done) == APPENDS:
                return
            self.chance.choice([self.send, self.send, self.carry_out, self.carry_out, self.maybe_cut])()
        raise AssertionError(f"stuck: {self}")

    # the sender

    def send(self) -> None:
        if self.refused and (self.in_order or self.chance.random() < 0.6):
            if self.in_order:
                # Go back: only once everything has its answer is it known what the first one is.
                if self.under_way:
                    return
                keys, self.refused = sorted(self.refused, key=_number), []
                for key in keys:
                    self._put(key)
                return
            self._put(self.refused.pop(self.chance.randrange(len(self.refused))))
        elif self.next < APPENDS and len(self.under_way) + len(self.refused) < WINDOW:
            self.next += 1
            self._put(f"k{self.next}")

    def _put(self, key: str) -> None:
        self.under_way.append(key)
        place = self.pipeline.place(key)
        if self.chance.random() < self.trouble:
            refusal = Refusal("overloaded", "full")
            self.pipeline.answered(place, refusal)
            self._hear(key, refusal)
        else:
            self.queues[self.replica].append((key, place))

    def _hear(self, key: str, answer: Answer) -> None:
        self.under_way.remove(key)
        if isinstance(answer, Refusal):
            assert answer.info.action is ClientAction.RETRY
            self.refused.append(key)
        else:
            self.done.add(key)

    def maybe_cut(self) -> None:
        """The stream breaks; on the next one, here or elsewhere, what is not done is sent again in order, at first."""
        if self.chance.random() > self.trouble / 3:
            return
        self.replica = self.chance.randrange(2)
        again = sorted({*self.under_way, *self.refused}, key=_number)
        self.pipeline, self.under_way, self.refused = Pipeline(WINDOW), [], []
        for key in again:
            self._put(key)

    # the authority

    def carry_out(self) -> None:
        queue = self.chance.choice(self.queues)
        taken = [queue.popleft() for _ in range(min(len(queue), self.chance.randint(1, 4)))]
        batch = a_batch(LIMITS, self.known, self.state)
        answers = [apply(batch, append(key), place) for key, place in taken]
        fails, is_stored = self.chance.random() < self.trouble, True
        if fails:
            answers, is_stored = [FOR_NOW] * len(taken), self.chance.random() < 0.5
        if is_stored:
            self._store(batch)
        for (key, place), answer in zip(taken, answers, strict=True):
            place.pipeline.answered(place, answer)
            if place.pipeline is self.pipeline:  # of an older stream, nobody hears the answer
                self._hear(key, answer)

    def _store(self, batch: Batch) -> None:
        self.state = batch.runs[RUN_ID]
        for (run_id, seq), key in sorted(batch.changes.keys.items(), key=lambda entry: entry[0][1]):
            name = key.idempotency_key
            self.known[run_id, name] = KnownKey(run_id, key.fingerprint, seq, key.batch_count)
            self.stored.append(name)


def _number(key: str) -> int:
    return int(key.removeprefix("k"))


@pytest.mark.parametrize("in_order", [True, False], ids=["sent again in order", "each sent again by itself"])
@given(st.integers(0, 2**32))
def test_the_order_of_the_log_is_the_order_of_sending(in_order: bool, seed: int) -> None:
    world = World(random.Random(seed), in_order)
    world.run()
    assert world.stored == [f"k{number}" for number in range(1, APPENDS + 1)]
