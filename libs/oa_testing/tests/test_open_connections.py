"""A test that leaves a connection open fails, and not the one that the collector happens to run in."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LEAVES_ONE_OPEN = """
import asyncio

kept = []

async def both(end):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    kept.append(writer)
    end(writer)
    await asyncio.sleep(0)
    server.close()

def test_it():
    asyncio.run(both(lambda writer: {end}))

def test_the_next():
    pass
"""


@pytest.mark.parametrize(
    ("end", "outcomes"), [("None", {"passed": 2, "errors": 1}), ("writer.transport.abort()", {"passed": 2})]
)
def test_a_connection_that_is_left_open_fails_its_test(
    pytester: pytest.Pytester, end: str, outcomes: dict[str, int]
) -> None:
    pytester.makepyfile(LEAVES_ONE_OPEN.replace("{end}", end))
    result = pytester.runpytest_subprocess("-p", "oa_testing.suite.open_connections", "-p", "no:cacheprovider")
    result.assert_outcomes(**outcomes)
    if "errors" in outcomes:
        result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "left open when the loop closed:*"])
