"""Examples as processes, whose worker is killed on a stack that notices that soon, and as modules."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port
from oa_testing.processes import killed_at_end
from oa_testing.stack import StackUnderTest
from tests.e2e.callers import Caller, caller_of
from tests.house.files import REPO

_IMPATIENT = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": "4000",
    "OA_WORKER_WATCH_MS": "100",
}


@asynccontextmanager
async def impatient(scratch: Path) -> AsyncIterator[Caller]:
    """A caller of a stack of its own, which takes a worker for lost after seconds."""
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": _IMPATIENT},
    )
    await stack.start()
    async with caller_of(stack, scratch) as caller:
        yield caller
    await stack.stop()


@asynccontextmanager
async def example(caller: Caller, file: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker with the agent of an example."""
    env = {**os.environ, **caller.env, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(sys.executable, str(REPO / "examples" / file), env=env)
    async with killed_at_end(process):
        yield process


def module_of(file: str, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of an example, in this process. `env`: what it finds in its environment when it is loaded."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    spec = spec_from_file_location(f"example_{Path(file).stem}", REPO / "examples" / file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module
