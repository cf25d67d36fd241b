"""A defect of ours ends the connection that it hits: whoever is connected would wait for ever."""

import pytest

from oa_khala.frames import Cursor
from services.khala_gateway.tests.harness import T, running


@pytest.mark.parametrize(
    ("broken", "cursor", "snapshots"),
    [("replay", None, False), ("replay", Cursor("e1", 5, b"c" * 32), False), ("snapshot", None, True)],
)
async def test_a_defect_ends_the_connection_and_nobody_waits_for_ever(
    broken: str, cursor: Cursor | None, snapshots: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object, **__: object) -> object:
        raise LookupError("a defect")

    async with running() as stack:
        stack.runtime.logs[T].has_snapshot_on_request = True
        monkeypatch.setattr(stack.sources["runtime"], broken, breaks)
        client = await stack.connect(T)
        await client.subscribe(T, cursor, snapshots=snapshots)
        assert await client.close_code() == ("internal", 1011)
        monkeypatch.undo()
        again = await stack.connect(T)
        await again.follow(T)
        await again.up_to(T, 10)
