"""What the schedules reach, how they are repeated, and what a person sees of one that fails.

The schedules themselves run in `test_schedules_1` to `_4`, side by side.
"""

import re

import pytest

from oa_khala.feed import Feed
from tests.simulation.__main__ import main
from tests.simulation.parts import run_schedules
from tests.simulation.schedule import SimulationFailure, run_schedule
from tests.simulation.trace import Trace

FAR = 2_000


@pytest.mark.parametrize(("seeds", "published"), [(200, False), (50, True)])
def test_a_seed_decides_everything(seeds: int, published: bool) -> None:
    for seed in range(seeds):
        first, again = Trace(None), Trace(None)
        assert run_schedule(seed, first, published=published) == run_schedule(seed, again, published=published)
        assert str(first) == str(again)


def test_the_schedules_reach_what_they_are_for() -> None:
    missing = {
        "connection_closing draining",
        "connection_closing idle_timeout",
        "connection_closing reauth_required",
        "connection_closing slow_consumer",
        "connection_closing token_replayed",
        "connection_closing token_revoked",
        "lineage_ended epoch_mismatch",
        "replay_postponed unavailable",
        "topic_refused retention_floor_breach",
        "frames_dropped",
        "resync",
        "snapshot",
        "run_snapshot",
        "sign_in",
    }
    for seed in range(FAR):
        outcome = run_schedule(seed)
        missing -= outcome.seen
        missing -= {name for name in ("resync", "snapshot", "run_snapshot", "sign_in") if getattr(outcome, f"{name}s")}
        if not missing:
            break
    assert missing == set()


def test_a_failure_says_how_to_repeat_it_and_shows_who_did_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Feed.offer

    def offer(self: Feed[object], first_seq: int, entries: list[object]) -> bool:
        return whole(self, min(first_seq, self.head + 1), entries)

    monkeypatch.setattr(Feed, "offer", offer)
    with pytest.raises(SimulationFailure) as caught:
        run_schedules(range(FAR))
    repeat = re.search(r"repeat: python -m tests\.simulation --from (\d+) --seeds 1", str(caught.value))
    assert repeat is not None
    assert main(["--from", repeat[1], "--seeds", "1"]) == 1
    shown = capsys.readouterr().err
    assert re.search(r"0\.\d{3} s  gateway0  comes up", shown)
    assert re.search(r"\d s  client0 +-> SUBSCRIBE run:events without a cursor, user:runs without a cursor", shown)
    assert re.search(r"\d s  client\d +<- (EVENT|SNAPSHOT) (run:events|user:runs) \d", shown)
    assert f"seed {repeat[1]}: Broken" in shown
