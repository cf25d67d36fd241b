"""The TypeScript client in the simulation: in storms, and held against the Python client in the same ones."""

from collections.abc import Iterator

import pytest

from oa_khala.client.commands import Apply, Command
from tests.simulation.__main__ import main
from tests.simulation.client import Sessions
from tests.simulation.foreign import ForeignSession, typescript_sessions
from tests.simulation.schedule import SimulationFailure, run_schedule
from tests.simulation.trace import Trace
from tests.typescript.package import COMPILE_TIMEOUT_S, compiled

pytestmark = pytest.mark.timeout(COMPILE_TIMEOUT_S + 60)

SCHEDULES = 250


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    """Of the TypeScript client."""
    compiled()
    with typescript_sessions() as sessions:
        yield sessions


@pytest.mark.parametrize("published", [False, True])
def test_schedules_hold_and_go_as_with_the_python_client(sessions: Sessions, published: bool) -> None:
    for seed in range(SCHEDULES):
        ours, theirs = Trace(None), Trace(None)
        run_schedule(seed, ours, published=published)
        run_schedule(seed, theirs, sessions, published=published)
        assert str(theirs) == str(ours)


def test_a_failure_says_how_to_repeat_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ForeignSession.told

    def told(self: ForeignSession, call: str, args: list[object]) -> list[Command]:
        """Each second event is lost on the way from the session to the store."""
        return [each for each in whole(self, call, args) if not isinstance(each, Apply) or each.cursor.applied_seq % 2]

    monkeypatch.setattr(ForeignSession, "told", told)
    with pytest.raises(SimulationFailure, match=r"applied .* after .*\n.*--seeds 1 --typescript$"):
        run_schedule(0, None, sessions)
    assert main(["--from", "0", "--seeds", "1", "--typescript"]) == 1
    assert "seed 0: Broken" in capsys.readouterr().err
