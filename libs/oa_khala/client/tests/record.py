"""Records the vectors: what a session answers in each test of `test_session*.py`, and in some walks.

`python -m libs.oa_khala.client.tests.record` writes them all anew. What has changed then, every client has to follow.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import pytest

from oa_khala.client.commands import Chains
from oa_khala.client.session import ClientSession
from oa_khala.client.tests import transcripts, walks
from oa_khala.client.tests.driver import Driver
from oa_khala.client.tests.transcripts import VECTORS, Recorded

WALKS = 12
WALK_STEPS = 100


class Recorder:
    """A pytest plugin: the sessions of each test, written down."""

    def __init__(self) -> None:
        self.sessions: list[Recorded] = []

    def pytest_runtest_setup(self, item: pytest.Function) -> None:
        """Forget the sessions of the test before, and listen to this one's."""
        self.sessions.clear()
        Driver.make = self.session

    def pytest_runtest_teardown(self, item: pytest.Function) -> None:
        """Write what the test's session did; one that makes its sessions by chance has none to show."""
        if len(self.sessions) == 1:
            name = re.sub(r"\W+", "_", item.name.removeprefix("test_")).strip("_")
            transcripts.write(VECTORS / f"{name}.json", self.sessions[0].transcript())

    def session(
        self, device_id: str, client_build_id: str, *, chains: Chains | None = None, grants: Collection[str] = ()
    ) -> ClientSession:
        """Stands in for `ClientSession`."""
        self.sessions.append(Recorded(device_id, client_build_id, chains=chains, grants=grants))
        return self.sessions[-1]


def main() -> None:
    """Entry of `python -m libs.oa_khala.client.tests.record`."""
    for path in VECTORS.glob("*.json"):
        path.unlink()
    tests = sorted(map(str, VECTORS.parent.glob("test_session*.py")))
    if pytest.main(["-q", *tests], plugins=[Recorder()]) != 0:
        raise SystemExit("mend the tests first: the vectors are what they do")
    for seed in range(WALKS):
        transcripts.write(VECTORS / f"walk_{seed}.json", walks.walk(seed, WALK_STEPS))


if __name__ == "__main__":
    main()
