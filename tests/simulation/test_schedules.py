"""How schedules are repeated, and what a person sees of one that fails.

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
