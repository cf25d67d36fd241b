"""A service for the tests of `oa_platform.process`: it does nothing, in the ways that the environment asks for."""

import asyncio
import os
from dataclasses import dataclass
from typing import ClassVar

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator
from oa_platform.config.shared import ServiceSettings
from oa_platform.process.lifecycle import Process, run_service
from oa_platform.rpc.server import GrpcServer


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
    if mode == "hang":
        await asyncio.Event().wait()
    if mode == "refuse":
        raise Refusal("unavailable", "The database is\naway.", field="OA_DATABASE_URL")
    if mode == "break":
        raise ValueError("broken")
    await process.enter(Part("first", 60 if mode == "slow_drain" else 0))
    await process.enter(Part("second"))
    process.background("work", _work(mode))
    await process.enter(GrpcServer(settings.grpc, Authenticator("runtime", {}, None), process.protection))


if __name__ == "__main__":
    run_service(SampleSettings, start)
