"""How recovery is timed and what counts as lost, without servers."""

from __future__ import annotations

from benchmarks.steadfast import Acknowledged, missing, recovered_at

BEFORE = Acknowledged(2, b"before", first_sent=1.0, at=1.1)
DURING = Acknowledged(3, b"during", first_sent=1.9, at=2.5)
AFTER = Acknowledged(4, b"after", first_sent=2.6, at=2.7)


def test_recovered_is_when_something_first_sent_after_the_kill_is_acknowledged() -> None:
    assert recovered_at([BEFORE, DURING, AFTER], killed_at=2.0) == 2.7
    assert recovered_at([BEFORE, DURING], killed_at=2.0) is None, "what was on its way may have been stored before"


def test_what_is_not_at_its_seq_is_missing() -> None:
    stored = {2: b"before", 3: b"during", 4: b"after"}
    everything = [BEFORE, DURING, AFTER]
    assert missing(everything, stored) == []
    assert missing(everything, {2: b"before", 4: b"after"}) == [DURING]
    assert missing(everything, {2: b"before", 3: b"after", 4: b"during"}) == [DURING, AFTER]
