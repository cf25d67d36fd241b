"""One runtime replica as a process of its own, for benchmarks: the service's own wiring, with a given key for tokens.

Configured by the environment like the service; `BENCH_TOKEN_KEY` is the public key (hex) that tokens are checked with.
Prints its port when it is up, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oa_platform.config import load
from oa_platform.jwks import StaticKeys
from oa_platform.logging import configure_logging
from oa_platform.process import Process
from oa_platform.readiness import Readiness
from services.runtime.__main__ import serve
from services.runtime.config import RuntimeSettings


async def _main() -> None:
    settings = load(RuntimeSettings, os.environ)
    configure_logging(settings.log, "runtime")
    keys = StaticKeys([Ed25519PublicKey.from_public_bytes(bytes.fromhex(os.environ["BENCH_TOKEN_KEY"]))])
    process = Process(Readiness(1))
    try:
        server = await serve(settings, process, keys)
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await process.close()


if __name__ == "__main__":
    uvloop.run(_main())
