"""A built shell of three assets, and a legacy upstream that is a process of its own."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from oa_client.cpython.operators.routes import RouteOperators
from oa_testing.processes import killed_at_end
from oa_testing.waiting import PATIENCE_S
from services.control.tests.harness import LOOPBACK, OPERATOR_TOKEN, Control
from services.control.web.domain import MANIFEST

SCRIPT = b"document.title = 'shell';" * 100
PAGE = b'<!doctype html><title>shell</title><script src="/assets/app-5f3a91c2.js"></script>'
SCRIPT_NAME = "assets/app-5f3a91c2.js"
_LEGACY = Path(__file__).with_name("legacy_process.py")


def write_release(folder: Path, files: dict[str, bytes]) -> Path:
    """A release with these files and the manifest that names them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in files.items()
    }
    (folder / MANIFEST).write_text(json.dumps({"files": entries}))
    return folder


def built_shell(folder: Path) -> Path:
    """A page, a script with its packed forms, and a service worker."""
    files = {
        "index.html": PAGE,
        SCRIPT_NAME: SCRIPT,
        f"{SCRIPT_NAME}.gz": gzip.compress(SCRIPT, mtime=0),
        f"{SCRIPT_NAME}.br": b"stands for brotli",
        "service-worker.js": b"self.addEventListener('fetch', () => {})",
    }
    return write_release(folder, files)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as `holds()`: what has to be asked for over a wire."""
    async with asyncio.timeout(2 * PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def operators_of(control: Control) -> AsyncIterator[RouteOperators]:
    """What operators call at a control service."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel:
        yield RouteOperators(channel, OPERATOR_TOKEN)


@asynccontextmanager
async def legacy_process() -> AsyncIterator[str]:
    """The URL of a legacy upstream, while it runs."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(_LEGACY), stdout=PIPE)
    assert process.stdout is not None
    async with killed_at_end(process):
        async with asyncio.timeout(PATIENCE_S):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
