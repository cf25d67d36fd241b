"""A service for the tests of `oa_platform.process`: it does nothing, in the ways that the environment asks for."""

from oa_platform.process.first import before_imports

before_imports()

import asyncio  # noqa: E402
import os  # noqa: E402
import threading  # noqa: E402
from collections.abc import AsyncIterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any, ClassVar  # noqa: E402

from oa_base.refusal import Refusal  # noqa: E402
from oa_platform.auth.authenticator import Authenticator  # noqa: E402
from oa_platform.config.loading import load  # noqa: E402
from oa_platform.config.shared import DatabaseSettings, ServiceSettings  # noqa: E402
from oa_platform.postgres.pool import Postgres  # noqa: E402
from oa_platform.process.lifecycle import Process, run_service  # noqa: E402
from oa_platform.rpc.server import GrpcServer  # noqa: E402
from oa_platform.tests.grpc_sample import Echo, Request, Response, add_echo  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class SampleSettings(ServiceSettings):
    """Its settings."""

    service: ClassVar[str] = "runtime"


class Part:
    """A part of it that says when it is stopped."""

    def __init__(self, name: str, stop_s: float = 0) -> None:
        self._name, self._stop_s = name, stop_s

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(self._stop_s)
        os.write(1, f"stopped {self._name}\n".encode())


class Named(Echo):
    """Answers with the address of its server."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    async def one(self, request: Request, context: Any) -> Response:
        """Unary, unary."""
        return Response(epoch=self._address)

    async def down(self, request: Request, context: Any) -> AsyncIterator[Response]:
        """Unary, stream; without an end."""
        yield Response(epoch=self._address)
        await asyncio.Event().wait()


async def _work(mode: str) -> None:
    await asyncio.sleep(0.1)
    if mode == "background_fails":
        raise ValueError("broken")
    await asyncio.Event().wait()


async def start(settings: SampleSettings, process: Process) -> None:
    """Start as `SAMPLE_MODE` says."""
    mode = os.environ.get("SAMPLE_MODE", "")
    if mode == "proxies":
        os.write(1, f"{sorted(name for name in os.environ if name.lower().endswith('_proxy'))}\n".encode())
    if mode == "database":
        await process.enter(Postgres(load(DatabaseSettings, os.environ), "runtime"))
    if mode == "hang":
        await asyncio.Event().wait()
    if mode == "refuse":
        raise Refusal("unavailable", "The database is\naway.", field="OA_DATABASE_URL")
    if mode == "canceled":
        await process.enter(Part("first"))
        raise asyncio.CancelledError  # as when a call is waited for that somebody else gives up
    if mode == "break":
        raise ValueError("broken")
    await process.enter(Part("first", {"slow_drain": 60, "no_drain": 1e6}.get(mode, 0)))
    await process.enter(Part("second", 1e6 if mode == "no_drain" else 0))
    if mode == "thread":
        _ = asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)  # begun before it is ready
    process.background("work", _work(mode))
    server = GrpcServer(
        settings.grpc, Authenticator("runtime", settings.identity.accepted_services, None), process.protection
    )
    server.register(add_echo, Named(str(settings.grpc.address)))
    await process.enter(server)


if __name__ == "__main__":
    run_service(SampleSettings, start)
