"""Every server that the gateway is compared with delivers everything; how fast is not tested."""

import sys
from pathlib import Path

import pytest

from benchmarks.khala_peers import Crowd, Load, series
from benchmarks.many_clients import go_program
from benchmarks.peers.processes import CENTRIFUGE
from oa_testing.waiting import PATIENCE_S

CROWD = Crowd(6, 2, (Load("singly", 6, 1, 1_000), Load("by 3", 4, 3, 1_000)))


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("kind", ["gateway", "broadcast", "nats"])
async def test_all_events_arrive(kind: str) -> None:
    rows = await series({kind: (sys.executable, "-m", "benchmarks.peers.fan_out", kind)}, [CROWD], 1)
    assert [(row.setting, row.events) for row in rows] == [("singly", 18), ("by 3", 36)]
    assert all("MISSING" not in row.note for row in rows)


@pytest.mark.timeout(PATIENCE_S)
async def test_all_events_of_the_peer_in_go_arrive(tmp_path: Path) -> None:
    program = go_program(CENTRIFUGE, tmp_path)
    if program is None:
        pytest.skip("needs Go, and Go's module proxy")
    rows = await series({"centrifuge": (str(program),)}, [CROWD], 1)
    assert [(row.setting, row.events) for row in rows] == [("singly", 18), ("by 3", 36)]
