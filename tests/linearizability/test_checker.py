"""The checker bites: it accepts what a single copy could have done, and refuses what it could not."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

from .checker import UNKNOWN, Operation, linearize
from .run_model import Append, Appended, Latest, Read, Refused, RunModel

Op = Operation[Append | Read, Appended | Refused | Latest]


def test_overlapping_appends_may_be_ordered_either_way() -> None:
    history = [
        Op("a", Append("k1", "x", 1), Appended(2, 2, again=False), 0.0, 3.0),
        Op("b", Append("k2", "y", 1), Appended(1, 1, again=False), 1.0, 2.0),
    ]
    order = linearize(RunModel(0), history)
    assert order is not None
    assert [operation.client for operation in order] == ["b", "a"]


def test_a_read_that_misses_an_acknowledged_append_is_refused() -> None:
    history = [
        Op("a", Append("k1", "x", 1), Appended(1, 1, again=False), 0.0, 1.0),
        Op("b", Read(), Latest(0), 2.0, 3.0),
    ]
    assert linearize(RunModel(0), history) is None


def test_two_appends_with_the_same_seq_are_refused() -> None:
    history = [
        Op("a", Append("k1", "x", 1), Appended(1, 1, again=False), 0.0, 3.0),
        Op("b", Append("k2", "y", 1), Appended(1, 1, again=False), 1.0, 2.0),
    ]
    assert linearize(RunModel(0), history) is None


def test_a_retry_that_stored_twice_is_refused() -> None:
    history = [
        Op("a", Append("k1", "x", 1), UNKNOWN, 0.0),
        Op("a", Append("k1", "x", 1), Appended(1, 1, again=False), 1.0, 2.0),
        Op("b", Read(), Latest(2), 3.0, 4.0),
    ]
    assert linearize(RunModel(0), history) is None


def test_an_unanswered_append_may_have_happened_late_or_never() -> None:
    lost = Op("a", Append("k1", "x", 1), UNKNOWN, 0.0, inf)
    assert linearize(RunModel(0), [lost, Op("b", Read(), Latest(0), 1.0, 2.0)]) is not None
    assert linearize(RunModel(0), [lost, Op("b", Read(), Latest(1), 1.0, 2.0)]) is not None
    assert linearize(RunModel(0), [lost, Op("b", Read(), Latest(2), 1.0, 2.0)]) is None


def test_a_conflict_has_to_name_the_seq_of_its_moment() -> None:
    append = Op("a", Append("k1", "x", 2), Appended(1, 2, again=False), 0.0, 1.0)
    good = Op("b", Append("k2", "y", 1, expected_seq=0), Refused("seq_conflict", 2), 2.0, 3.0)
    bad = Op("b", Append("k2", "y", 1, expected_seq=0), Refused("seq_conflict", 1), 2.0, 3.0)
    assert linearize(RunModel(0), [append, good]) is not None
    assert linearize(RunModel(0), [append, bad]) is None


def test_of_two_equal_unanswered_appends_one_may_have_happened() -> None:
    lost = [Op("a", Append("k1", "x", 1), UNKNOWN, 0.0), Op("b", Append("k1", "x", 1), UNKNOWN, 1.0)]
    assert linearize(RunModel(0), [*lost, Op("c", Read(), Latest(1), 2.0, 3.0)]) is not None
    assert linearize(RunModel(0), [*lost, Op("c", Read(), Latest(2), 2.0, 3.0)]) is None


def test_what_goes_over_one_stream_takes_effect_in_its_order() -> None:
    first = Op("s", Append("k1", "x", 1), Appended(2, 2, again=False), 0.0, 3.0)
    second = Op("s", Append("k2", "y", 1), Appended(1, 1, again=False), 1.0, 3.0)
    assert linearize(RunModel(0), [first, second]) is not None
    assert linearize(RunModel(0), [replace(first, stream="1"), replace(second, stream="2")]) is not None
    assert linearize(RunModel(0), [replace(first, stream="1"), replace(second, stream="1")]) is None


def test_what_was_lost_on_a_stream_happened_in_its_turn_or_never() -> None:
    lost = Op("s", Append("k1", "x", 1), UNKNOWN, 0.0, stream="1")
    again = Op("s", Append("k1", "x", 1), UNKNOWN, 4.0, stream="2")
    second = Op("s", Append("k2", "y", 1), Appended(1, 1, again=False), 1.0, 3.0, stream="1")
    late = Op("b", Append("k3", "y", 1), Appended(3, 3, again=False), 5.0, 6.0)
    assert linearize(RunModel(0), [lost, second]) is not None
    assert linearize(RunModel(0), [lost, second, late]) is None
    assert linearize(RunModel(0), [lost, second, again, late]) is not None


def test_an_unanswered_append_comes_after_what_it_had_to_wait_for() -> None:
    lost = Op("a", Append("k2", "x", 1, expected_seq=1), UNKNOWN, 0.0)
    first = Op("b", Append("k1", "x", 1), Appended(1, 1, again=False), 1.0, 2.0)
    assert linearize(RunModel(0), [lost, first, Op("b", Read(), Latest(2), 3.0, 4.0)]) is not None


def test_histories_of_a_single_copy_pass_and_their_corruptions_do_not() -> None:
    """Random true histories: each operation takes effect at one moment between invocation and return."""
    for seed in range(200):
        rng = random.Random(seed)
        history = _true_history(rng, operations=24)
        assert linearize(RunModel(0), history) is not None, f"seed {seed}"
        victims = [i for i, operation in enumerate(history) if isinstance(operation.answer, Latest)]
        if victims:
            victim = rng.choice(victims)
            broken = list(history)
            operation = broken[victim]
            broken[victim] = Op(operation.client, operation.call, Latest(999), operation.invoked, operation.returned)
            assert linearize(RunModel(0), broken) is None, f"seed {seed}"


def _true_history(rng: random.Random, operations: int) -> list[Op]:
    model = RunModel(0)
    state = model.initial()
    calls: list[tuple[float, float, float, Append | Read]] = []
    for index in range(operations):
        effect = rng.uniform(0, 100)
        call: Append | Read = Read()
        if rng.random() < 0.7:
            key = f"k{rng.randrange(index + 1)}"
            call = Append(key, rng.choice("xy"), rng.randint(1, 3), rng.choice([None, None, rng.randint(0, 5)]))
        calls.append((effect, effect - rng.uniform(0, 15), effect + rng.uniform(0, 15), call))
    history: list[Op] = []
    for _effect, invoked, returned, call in sorted(calls, key=lambda entry: entry[0]):
        candidates = _answers(state.seq, call, state.by_key(call.key) if isinstance(call, Append) else None)
        answer, after = next((a, s) for a in candidates if (s := model.step(state, call, a)) is not None)
        state = after
        history.append(Op(f"c{len(history)}", call, answer, invoked, returned))
    return history


def _answers(
    seq: int, call: Append | Read, known: tuple[tuple[str, str, int], int] | None
) -> list[Appended | Refused | Latest]:
    if isinstance(call, Read):
        return [Latest(seq)]
    answers: list[Appended | Refused | Latest] = [
        Appended(seq + 1, seq + call.count, again=False),
        Refused("seq_conflict", seq),
        Refused("idempotency_conflict"),
    ]
    if known is not None:
        (_, _, count), first = known
        answers.append(Appended(first, first + count - 1, again=True))
    return answers
