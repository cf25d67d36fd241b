"""A runtime replica as a process of its own, for benchmarks: the service's own wiring, with a given key for tokens.

Configured by the environment like the service; `BENCH_TOKEN_KEY` is the public key (hex) with which tokens are checked.
Prints its ports for gRPC and metrics once it is up, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client import start_http_server

from oa_platform.auth.jwks import StaticKeys
from oa_platform.config.loading import load
from oa_platform.health.readiness import Readiness
from oa_platform.process.gc_pauses import calm_garbage_collection
from oa_platform.process.lifecycle import Process
from oa_platform.telemetry.logging import configure_logging
from oa_platform.telemetry.metrics import REGISTRY
from services.runtime.config import RuntimeSettings
from services.runtime.wiring import serve


async def _main() -> None:
    settings = load(RuntimeSettings, os.environ)
    configure_logging(settings.log, "runtime")
    keys = StaticKeys([Ed25519PublicKey.from_public_bytes(bytes.fromhex(os.environ["BENCH_TOKEN_KEY"]))])
    process = Process(Readiness(1))
    try:
        server = await serve(settings, process, keys)
        process.readiness.phase = "running"  # a replica that accepts no workers never loses one
        calm_garbage_collection()
        metrics, _ = start_http_server(0, addr="127.0.0.1", registry=REGISTRY)
        sys.stdout.write(f"{server.port} {metrics.server_port}\n")
        sys.stdout.flush()
        # Nobody reads the pipe any more: a log that filled it would stop the service.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await process.close()


if __name__ == "__main__":
    uvloop.run(_main())
