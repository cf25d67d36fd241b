"""The basis of the log's benchmarks: a durable Postgres of their own and runtime replicas as real processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from oa_base.identity import ISSUER
from oa_localstack.postgres.server import DURABLE, SUPERUSER, PostgresServer
from oa_platform.auth.keys import SigningKey, generate_key
from oa_platform.auth.tokens import sign_token
from oa_platform.config.shared import token_hash
from oa_platform.postgres import preparation
from oa_platform.postgres.planes import ROLES
from oa_platform.system.ids import new_id
from oa_testing.postgres import Database, Databases, ServerAddress, free_port
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import claims_pb2

REPOSITORY = Path(__file__).resolve().parents[1]
CONTROL_TOKEN, PROJECTOR_TOKEN = "bench-control", "bench-projector"
_TOKEN_USE_S = 20
WAL = {"min_wal_size": "3GB", "max_wal_size": "8GB"}
_WAL_PIECES, _WAL_PIECE_BYTES = 192, 15 << 20
"""Amount written to the write-ahead log in advance, so that its files exist before anything is measured."""
_SILENCE_ALLOWED_MS = "600000"
"""Producers send appends but no heartbeats. With this limit, a long series makes no worker lost or quiet."""
UNPACED = {"OA_RUN_EVENTS_PER_SECOND": "1000000", "OA_RUN_BURST_EVENTS": "1000000"}
"""Settings that lift the limit on a run's pace: it exists for people's sake, not for the log's."""


@dataclass
class Replica:
    """A running replica."""

    process: subprocess.Popen[str]
    target: str
    """Its gRPC address."""
    metrics: str
    """Host and port of its metrics."""

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end of the process."""
        self.process.kill()
        self.process.wait()

    def metric(self, name: str) -> float:
        """The current value of a metric without labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).removeprefix(f"{name} "))


@dataclass
class Stage:
    """A durable Postgres with the runtime's tables."""

    postgres: PostgresServer
    databases: Databases
    database: Database
    key: SigningKey
    org_id: str = field(default_factory=lambda: new_id("org"))
    user_id: str = field(default_factory=lambda: new_id("usr"))
    account_id: str = field(default_factory=lambda: new_id("sva"))
    _principal: tuple[int, str] = field(default=(0, ""), init=False)  # another person's stage has another
    """When the person's token was made, and the token."""

    @contextmanager
    def replica(self, env: Mapping[str, str] = UNPACED) -> Iterator[Replica]:
        """A replica that runs for a block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.runtime_process"],
            cwd=REPOSITORY,
            env={**os.environ, **self._environment(), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        try:
            ports = process.stdout.readline().split()
            yield Replica(process, *(f"127.0.0.1:{port}" for port in ports))
        finally:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()

    def _environment(self) -> dict[str, str]:
        public = self.key.public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        receipt_key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "BENCH_TOKEN_KEY": public.hex(),
            "OA_DATABASE_URL": self.database.runtime,
            "OA_ENV": "development",
            "OA_SERVICE_TOKEN": "bench-runtime",
            "OA_ACCEPTED_SERVICES": f"control={token_hash(CONTROL_TOKEN)},projector={token_hash(PROJECTOR_TOKEN)}",
            "OA_RECEIPT_KEY": receipt_key.decode(),
            "OA_GRPC_ADDRESS": "127.0.0.1:0",
            "OA_WORKER_QUIET_MS": _SILENCE_ALLOWED_MS,
            "OA_WORKER_LOST_MS": _SILENCE_ALLOWED_MS,
            "OA_LOG_LEVEL": "warning",
            "OA_LOG_FORMAT": "console",
        }

    @property
    def as_person(self) -> list[tuple[str, str]]:
        """Metadata of a call that control makes for a person; it reuses a token for as long as control does."""
        now = int(time.time())
        if now - self._principal[0] >= _TOKEN_USE_S:
            claims = claims_pb2.PrincipalClaims(
                sub=self.user_id,
                kind=principal_pb2.PRINCIPAL_KIND_USER,
                **self._claims(60, ("runs.read", "runs.write")),
            )
            self._principal = now, sign_token(claims, self.key)
        return [("x-oa-service-token", CONTROL_TOKEN), ("x-oa-principal", self._principal[1])]

    @property
    def as_worker(self) -> list[tuple[str, str]]:
        """Metadata of a worker's call."""
        claims = claims_pb2.WorkerTokenClaims(
            sub=self.account_id, kind=principal_pb2.PRINCIPAL_KIND_WORKER, **self._claims(600, ("workers.attach",))
        )
        return [("authorization", f"Bearer {sign_token(claims, self.key)}")]

    def _claims(self, ttl_s: int, scopes: tuple[str, ...]) -> dict[str, Any]:
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + ttl_s}
        return {"iss": ISSUER, "aud": "runtime", "jti": new_id("jti"), "org_id": self.org_id, "scopes": scopes} | times


@contextmanager
def stage(*, as_used: bool = True) -> Iterator[Stage]:
    """A stage in a temporary directory, removed afterwards. Must not be called in an event loop.

    Without `as_used` its server is a new one, which starts at once and is enough for callers that measure nothing.
    """
    with ExitStack() as cleanup:
        root = Path(tempfile.mkdtemp(prefix="oa-bench-"))
        cleanup.callback(shutil.rmtree, root, ignore_errors=True)
        root.chmod(0o755)  # Postgres may run as another user
        passwords = {role: secrets.token_urlsafe(16) for role in (SUPERUSER, *ROLES)}
        address = ServerAddress(free_port(), passwords)
        server = PostgresServer(root / "postgres", address.port, passwords[SUPERUSER], root / "log", {**DURABLE, **WAL})
        asyncio.run(_start(server, address, as_used))
        cleanup.callback(lambda: asyncio.run(server.stop()))
        databases = Databases(address, "bench")
        cleanup.callback(databases.close)
        yield Stage(server, databases, databases.create(("runtime",)), generate_key())


async def _start(server: PostgresServer, address: ServerAddress, as_used: bool) -> None:
    await server.start()
    async with preparation.admin_connection(address.admin_dsn()) as admin:
        await preparation.prepare_cluster(admin, address.passwords)
        if as_used:
            await _fill_wal(admin)


async def _fill_wal(admin: asyncpg.Connection[asyncpg.Record]) -> None:
    """Bring the server into the state of one that has run for a while.

    A new server creates a file of its write-ahead log every 16 MB, which takes 10 ms in the middle of a commit; a
    server that has run for a while reuses its old files.
    """
    for _ in range(_WAL_PIECES):
        await admin.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', $1))", _WAL_PIECE_BYTES)
    await admin.execute("CHECKPOINT")
