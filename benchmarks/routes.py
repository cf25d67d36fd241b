"""How soon does a change of web routes count at every replica? `python -m benchmarks.routes [--json FILE]`

A whole stack on loopback, as `oa up` starts it, with further replicas of control on the same database, a web shell and
a legacy side. An operator moves a group from one side to the other and back, at the first replica. Each replica is
asked for a page of the group over and over meanwhile:

- **changed → served**: from the answer to the operator until a replica answers from the new side; of every replica, and
  of the one that has it last.
- **the same, cut off**: all connections on which replicas hear of changes are ended right before each change.
- **bare page** (floor): one page of one replica, with no change under way.

What a replica serves before the operator has an answer counts as 0. The goal is 5 s for the longest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc.aio
import httpx
import uvloop

from benchmarks.measure import Figures, report
from benchmarks.people import PATIENCE_S, site
from oa_client.cpython.operators.routes import RouteGroup, RouteOperators
from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.ports import HOST
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.postgres.server import SUPERUSER
from oa_platform.config.callers import OPERATOR
from oa_platform.postgres.planes import DATABASE
from oa_testing.peers.listener import Listener
from oa_testing.postgres import free_port
from oa_testing.stack import StackUnderTest
from services.control.web.domain import MANIFEST

GOAL_MS = 5_000.0
_PAGE = "/bench"
_SIDES = ("shell", "legacy")
_CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = 'control_app' AND application_name LIKE '%-listener'"""
"""Ends the connections on which control hears of changes by other replicas."""


@dataclass
class Replicas:
    """Replicas of control, their operator, and the database connection that cuts off their listeners."""

    pages: Sequence[httpx.AsyncClient]
    operator: RouteOperators
    database: asyncpg.Connection[asyncpg.Record]

    async def cut(self) -> None:
        """Cut off all listeners: no replica hears of changes until it connects again."""
        cut = await self.database.fetchval(_CUT)
        assert cut >= len(self.pages), cut

    async def move(self, side: str) -> list[float]:
        """Move everything to this side. Returns the milliseconds after which each replica serves it."""
        looks = [asyncio.ensure_future(_served(page, side)) for page in self.pages]
        await asyncio.sleep(0)
        await self.operator.set(RouteGroup("bench", [_PAGE], side, 0))
        answered = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):
            return [max(0.0, (moment - answered) * 1000) for moment in await asyncio.gather(*looks)]

    async def page_ms(self) -> float:
        """The milliseconds of a page of the first replica."""
        began = time.perf_counter()
        await self.pages[0].get(_PAGE)
        return (time.perf_counter() - began) * 1000


async def _served(page: httpx.AsyncClient, side: str) -> float:
    """The moment at which a replica first answered from this side."""
    while (await page.get(_PAGE)).text != side:
        await asyncio.sleep(0)
    return time.perf_counter()


# ------------------------------------------------------------------------------------------------- what is there


def _release(folder: Path) -> Path:
    """A web shell of one page."""
    folder.mkdir()
    page = b"shell"
    (folder / "index.html").write_bytes(page)
    entry = {"sha256": hashlib.sha256(page).hexdigest(), "size": len(page)}
    (folder / MANIFEST).write_text(json.dumps({"files": {"index.html": entry}}))
    return folder


@asynccontextmanager
async def _legacy() -> AsyncIterator[str]:
    """The URL of a server that answers every request with its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\nlegacy")

    async with Listener(serve) as server:
        yield f"http://{HOST}:{server.port}"


@asynccontextmanager
async def _further(stack: StackUnderTest, web: dict[str, str]) -> AsyncIterator[str]:
    """The URL of one more replica of control, while it runs."""
    ports = {name: free_port() for name in ("OA_HTTP_ADDRESS", "OA_GRPC_ADDRESS", "OA_OPS_ADDRESS")}
    async with stack.replica("control", {**web, **{name: f"{HOST}:{port}" for name, port in ports.items()}}):
        yield f"http://{HOST}:{ports['OA_HTTP_ADDRESS']}"


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[Replicas]:
    """`count` replicas, for a block."""
    async with AsyncExitStack() as open_now:
        folder = Path(open_now.enter_context(tempfile.TemporaryDirectory(prefix="oa-bench-web-")))
        legacy = await open_now.enter_async_context(_legacy())
        web = {"OA_WEB_ROOT": str(_release(folder / "web")), "OA_LEGACY_URL": legacy}
        here = await open_now.enter_async_context(site(control=web))
        stack = here.stack
        further = [await open_now.enter_async_context(_further(stack, web)) for _ in range(count - 1)]
        urls = [stack.urls["control"], *further]
        secrets = load_or_create(stack.home / "secrets")
        channel = grpc.aio.insecure_channel(f"{HOST}:{stack.ports.control_grpc}")
        await open_now.enter_async_context(channel)
        database = await asyncpg.connect(role_dsn(SUPERUSER, stack.ports, secrets, DATABASE))
        open_now.push_async_callback(database.close)
        pages = [
            await open_now.enter_async_context(
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S, headers={"accept": "text/html"})
            )
            for url in urls
        ]
        yield Replicas(pages, RouteOperators(channel, secrets.service_tokens[OPERATOR]), database)


# ------------------------------------------------------------------------------------------------- rows


async def _moves(at: Replicas, changes: int, before: Callable[[], Awaitable[None]] | None = None) -> list[list[float]]:
    """The milliseconds that each change took at each replica."""
    took = []
    for number in range(changes):
        if before is not None:
            await before()
        took.append(await at.move(_SIDES[number % 2]))
    return took


def _rows(subject: str, replicas: int, took: Sequence[Sequence[float]]) -> list[Figures]:
    every, last = [each for one in took for each in one], [max(one) for one in took]
    setting = f"{replicas} replicas"
    note = f"longest {max(last):,.0f} ms, {max(last) / GOAL_MS:.1%} of the goal of {GOAL_MS:,.0f} ms"
    return [
        Figures(f"{subject}, each replica", setting, len(every), sum(every) / 1000, every),
        Figures(f"{subject}, the last replica", setting, len(last), sum(last) / 1000, last, note),
    ]


async def measured(counts: Sequence[int], changes: int, cut_changes: int) -> list[Figures]:
    """Every row, for each number of replicas."""
    rows: list[Figures] = []
    for count in counts:
        async with replicas(count) as at:
            await at.move(_SIDES[1])
            rows += _rows("changed → served", count, await _moves(at, changes))
            rows += _rows("the same, cut off", count, await _moves(at, cut_changes, at.cut))
            floor = [await at.page_ms() for _ in range(changes)]
            rows.append(Figures("bare page (floor)", "one at a time", len(floor), sum(floor) / 1000, floor))
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--cut-changes", type=int, default=50, help="changes without a listener")
    arguments = parser.parse_args()
    rows = uvloop.run(measured(arguments.replicas, arguments.changes, arguments.cut_changes))
    report("routes: how soon does a change count at every replica?", rows, arguments.json)


if __name__ == "__main__":
    main()
