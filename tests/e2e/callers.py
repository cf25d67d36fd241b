"""Somebody's program that calls a stack with an API key, by a way to Khala that breaks on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oa_testing.peers.fault_proxy import FaultProxy
from oa_testing.stack import StackUnderTest
from openagents import RunHandle, events
from tests.e2e.world import World, signed_in


@dataclass
class Caller:
    """`env` is what the program finds in its environment."""

    world: World
    env: dict[str, str]
    way: FaultProxy


@asynccontextmanager
async def caller_of(stack: StackUnderTest, folder: Path) -> AsyncIterator[Caller]:
    """A program with a key of a service account of its own person's org."""
    async with signed_in(stack, folder / "client", f"{folder.name}@example.org") as world:
        key = (await world.client.commands.create_service_account("program")).api_key
        khala = urlsplit(stack.urls["khala"])
        assert khala.port is not None
        way = FaultProxy("127.0.0.1", khala.port)
        await way.start()
        env = {
            "OA_CONTROL_URL": stack.urls["control"],
            "OA_API_KEY": key,
            "OA_KHALA_URL": f"ws://127.0.0.1:{way.port}{khala.path}",
        }
        try:
            yield Caller(world, env, way)
        finally:
            await way.close()


async def until_said(run: RunHandle, words: str) -> None:
    """Until so much was said to somebody who follows."""
    said = ""
    async for event in run.events():
        if isinstance(event.body, events.TextDelta):
            said += event.body.data.decode()
        if words in said:
            return
