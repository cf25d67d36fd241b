"""A runtime as a process of its own, with an archive in a directory, that is killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from oa_localstack.services import ServiceProcess, python_module
from oa_platform.auth.keys import to_jwks
from oa_platform.config.shared import token_hash
from oa_testing.postgres import ON_FAST, Database, free_port
from services.runtime.archive.store.objects import STAGING
from services.runtime.tests.rig import CONTROL_TOKEN, Doors, Somebody, somebody

START_TIMEOUT_S = 120.0
RETENTION_S = 1
HURRIED = {
    "OA_ARCHIVE_POLL_MS": "20",
    "OA_ARCHIVE_PAGE": "5",
    "OA_ARCHIVE_RETRY_S": "0",
    "OA_ARCHIVE_LEASE_MS": "100",
    "OA_MERGE_PAGE": "3",
    "OA_MERGE_PAUSE_MS": "1",
    "OA_MERGE_POLL_MS": "20",
    "OA_RUN_EVENTS_PER_SECOND": "1000000",
    "OA_RUN_BURST_EVENTS": "1000000",
    "OA_WORKER_HEARTBEAT_MS": "60000",
    "OA_WORKER_QUIET_MS": "120000",
    "OA_WORKER_LOST_MS": "180000",
    "OA_DISPATCH_INTERVAL_MS": "50",
}
"""Always something to merge and to archive, in many small transactions."""
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]


def objects_in(archive: Path) -> set[str]:
    """The names of an archive's objects."""
    return {path.relative_to(archive).as_posix() for path in archive.glob("??/*")}


class Site:
    """The process, what it stands on, and the way to it; an async context manager. Starts nothing by itself."""

    def __init__(
        self,
        database: Database,
        root: Path,
        settings: Mapping[str, str] | None = None,
        interpreter: str = sys.executable,
    ) -> None:
        """`settings`: variables of the process, beside those that all have here. `interpreter`: ours, which starts the
        process anew, or `PYTHON` of `oa_testing.fork_server`."""
        self.database = database
        self._settings = settings or {}
        self.archive = root / "archive"
        self.who: Somebody = somebody()
        self.kills = 0
        self.grpc_port, self.ops_port = free_port(), free_port()
        self._process = ServiceProcess(
            name="runtime",
            argv=python_module("services.runtime", interpreter),
            env=self._environment(root),
            log_path=root / "runtime.log",
            ops_port=self.ops_port,
            stop_timeout_s=10,
        )

    async def __aenter__(self) -> Site:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=_CHANNEL)
        self.doors = Doors(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        self._process.kill()

    async def start(self) -> None:
        """Start it; it is not ready yet."""
        await self._process.start()

    async def until_ready(self) -> None:
        """Return when it is ready."""
        await self._process.until_ready(START_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process.pid is not None, f"it ended by itself: {self._process.exit_status}"
        self._process.kill()
        self.kills += 1

    def objects(self) -> set[str]:
        """The names of the objects in the archive."""
        return objects_in(self.archive)

    def half_written(self) -> list[Path]:
        """What was being written to the archive when the process was killed, or is being written now."""
        return list((self.archive / STAGING).glob("*"))

    async def channel_ready(self) -> None:
        """Return when the client has found it again."""
        await asyncio.wait_for(self._channel.channel_ready(), START_TIMEOUT_S)

    def _environment(self, root: Path) -> dict[str, str]:
        key = Ed25519PrivateKey.generate()
        self.receipt_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        keys = root / "jwks.json"
        keys.write_text(json.dumps(to_jwks([self.who.key.public_key])))
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("OA_")},
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONUNBUFFERED": "1",
            "OA_DATABASE_URL": self.database.runtime,
            **ON_FAST,
            "OA_GRPC_ADDRESS": f"127.0.0.1:{self.grpc_port}",
            "OA_OPS_ADDRESS": f"127.0.0.1:{self.ops_port}",
            "OA_SERVICE_TOKEN": "runtime's token",
            "OA_ACCEPTED_SERVICES": f"control={token_hash(CONTROL_TOKEN)}",
            "OA_RECEIPT_KEY": pem.decode(),
            # Nobody is there: the keys are those of the file.
            "OA_CONTROL_URL": f"http://127.0.0.1:{free_port()}",
            "OA_JWKS_CACHE_FILE": str(keys),
            "OA_ARCHIVE_URL": str(self.archive),
            "OA_RETENTION_CLASSES": f"default={RETENTION_S}s",
            **HURRIED,
            **self._settings,
        }
