"""What is wrong with the order of a record has one name each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.proof.sequence import in_sequence


def judge(seqs: list[int], count: int | None = None) -> tuple[str, str]:
    """(reason, seq) of the refusal; ("", "") for a record in order."""
    try:
        assert list(in_sequence(seqs, lambda seq: seq, count)) == seqs
    except Refusal as refusal:
        return refusal.reason, refusal.metadata["seq"]
    return "", ""


@given(st.integers(0, 20))
def test_what_is_in_order_passes(count: int) -> None:
    seqs = list(range(1, count + 1))
    assert judge(seqs) == judge(seqs, count) == ("", "")


@given(st.data())
def test_each_fault_is_named_with_its_place(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 20), label="count")
    seqs = list(range(1, count + 1))
    at = data.draw(st.integers(0, count - 2), label="place")
    seq = str(seqs[at])
    assert judge(seqs[:at] + seqs[at + 1 :], count) == ("event_missing", seq)
    assert judge(seqs[: at + 1] + seqs[at:], count) == ("event_doubled", seq)
    assert judge([*seqs[:at], seqs[at + 1], seqs[at], *seqs[at + 2 :]], count) == ("event_misplaced", seq)
    assert judge(seqs[: at + 1], count) == ("tail_cut", str(at + 2))
    assert judge(seqs, at + 1) == ("sequence_broken", str(at + 2))
    again = data.draw(st.integers(at + 1, count), label="again after")
    assert judge([*seqs[:again], seqs[at], *seqs[again:]], count) == ("event_doubled", seq)


@pytest.mark.parametrize("seqs", [[0], [-1, 0, 1], [1, 0, 2]])
def test_what_is_no_seq_is_refused(seqs: list[int]) -> None:
    assert judge(seqs)[0] == "sequence_broken"


def test_each_is_checked_when_it_is_asked_for() -> None:
    lazy = in_sequence(iter([1, 2, 4]), lambda seq: seq)
    assert [next(lazy), next(lazy)] == [1, 2]
    with pytest.raises(Refusal):
        next(lazy)
