"""Who comes to a cluster from outside: a person at a device, and a worker."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oa_testing.stack import StackUnderTest
from tests.deploy.cluster.running import Cluster
from tests.deploy.cluster.sandbox import Sandbox
from tests.deploy.cluster.surroundings import Surroundings
from tests.e2e.world import World, signed_in

EDGE = "https://api.staging.openagents.example"


@contextmanager
def _resolving(hosts: Mapping[str, str]) -> Iterator[None]:
    """This process finds the Gateway's host names, as everybody in the world does once they are in DNS."""
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode("ascii") if isinstance(host, bytes) else host
        return original(hosts.get(name, host), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@asynccontextmanager
async def person(cluster: Cluster, around: Surroundings) -> AsyncIterator[World]:
    """Somebody at a device, signed in over the Gateway, for a block."""
    stack = SimpleNamespace(home=cluster.home, urls={"control": EDGE})
    with _resolving(cluster.hosts):
        client = cluster.home / "client"
        async with signed_in(cast("StackUnderTest", stack), client, ca_file=around.home / "site-ca.crt") as world:
            yield world


@asynccontextmanager
async def worker(cluster: Cluster, world: World, gates: Path) -> AsyncIterator[Sandbox]:
    """A worker of that person; commands of its runs reach the folder `gates`."""
    account = await world.client.commands.create_service_account("worker")
    started = cluster.worker(EDGE, account.api_key, gates)
    try:
        yield started
    finally:
        started.kill()
