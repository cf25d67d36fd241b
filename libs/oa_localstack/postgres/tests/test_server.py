"""The embedded Postgres starts, stops, and comes back from every way of dying."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from oa_base.refusal import Refusal
from oa_localstack.postgres.server import PostgresServer, processes_in
from oa_localstack.processes.supervision import RestartPolicy, Supervision
from oa_platform.tasks.ending import cancel_and_wait
from oa_testing.postgres import FAST, free_port
from oa_testing.waiting import PATIENCE_S, eventually


async def _put(server: PostgresServer, value: int) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def _kept(server: PostgresServer) -> list[int]:
    connection = await asyncpg.connect(server.dsn())
    rows = await connection.fetch("SELECT x FROM kept ORDER BY x")
    await connection.close()
    return [row["x"] for row in rows]


async def test_data_outlives_a_stop(own_postgres: PostgresServer) -> None:
    await _put(own_postgres, 1)
    await own_postgres.stop()
    assert processes_in(own_postgres.data) == []
    assert not (own_postgres.data / "postmaster.pid").exists()

    await own_postgres.start()

    assert await _kept(own_postgres) == [1]


async def test_a_restart_needs_no_room_for_what_is_known(own_postgres: PostgresServer) -> None:
    own_postgres.marker = own_postgres.root / "marker"
    await own_postgres.stop()
    await own_postgres.start()
    written = own_postgres.marker.stat().st_ino
    await own_postgres.stop()

    await own_postgres.start()

    assert own_postgres.marker.stat().st_ino == written


async def test_the_log_has_a_limited_size_while_the_server_runs(own_postgres: PostgresServer) -> None:
    """What was logged last is there, and only so much of what was before."""
    log, max_bytes, number = own_postgres.log_path, 10_000, 0
    supervision = Supervision(own_postgres, RestartPolicy(), print, max_log_bytes=max_bytes)
    watching = asyncio.create_task(supervision.run())
    connection = await asyncpg.connect(own_postgres.dsn())
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(2):
            before = _inode(log.with_name("postgres.log.1"))
            while _inode(log.with_name("postgres.log.1")) == before:
                number += 1
                with pytest.raises(asyncpg.RaiseError):
                    await connection.execute(f"DO $$ BEGIN RAISE 'number {number:06}'; END $$")
    await connection.close()
    await eventually(lambda: log.stat().st_size <= max_bytes)
    await cancel_and_wait(watching)
    paths = sorted(log.parent.glob("postgres.log*"))
    assert [path.name for path in paths] == ["postgres.log", "postgres.log.1"]
    kept = "".join(path.read_text("utf-8") for path in paths)
    assert f"ERROR:  number {number:06}" in kept
    assert "ERROR:  number 000001" not in kept


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


async def test_data_outlives_kill_9_with_clients_at_work(own_postgres: PostgresServer) -> None:
    await _put(own_postgres, 1)
    busy = await asyncpg.connect(own_postgres.dsn())
    holding = busy.transaction()
    await holding.start()
    await busy.execute("INSERT INTO kept VALUES (2)")

    own_postgres.kill()
    await own_postgres.start()

    assert await _kept(own_postgres) == [1]
    busy.terminate()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with Postgres."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def test_a_pid_file_with_a_number_in_use_again_is_no_obstacle(
    own_postgres: PostgresServer, bystander: subprocess.Popen[bytes]
) -> None:
    await own_postgres.stop()
    stale = f"{bystander.pid}\n{own_postgres.data}\n1\n{own_postgres.port}\n\n127.0.0.1\n   1 1\nready\n"
    (own_postgres.data / "postmaster.pid").write_text(stale)

    await own_postgres.start()

    assert own_postgres.pid is not None
    assert own_postgres.pid != bystander.pid
    assert bystander.poll() is None


async def test_a_wrong_password_is_refused(own_postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_postgres.dsn().replace(own_postgres.superuser_password, "wrong"))


async def test_two_servers_never_share_data(own_postgres: PostgresServer) -> None:
    rival = PostgresServer(own_postgres.root, free_port(), "x", own_postgres.log_path, FAST)

    with pytest.raises(Refusal) as refusal:
        await rival.start()

    assert refusal.value.reason == "start_failed"
    assert own_postgres.pid is not None


async def test_data_of_another_version_is_refused_untouched(own_postgres: PostgresServer) -> None:
    await own_postgres.stop()
    (own_postgres.data / "PG_VERSION").write_text("9\n")

    with pytest.raises(Refusal, match="PostgreSQL 9"):
        await own_postgres.start()

    (own_postgres.data / "PG_VERSION").write_text("18\n")


async def test_a_failed_start_shows_the_last_log_lines(own_postgres: PostgresServer) -> None:
    await own_postgres.stop()
    own_postgres.settings = {**FAST, "shared_buffers": "nonsense"}

    with pytest.raises(Refusal, match="invalid value for parameter") as refusal:
        await own_postgres.start()

    assert refusal.value.reason == "start_failed"
    assert own_postgres.superuser_password not in str(refusal.value)
    own_postgres.settings = FAST


async def test_a_start_that_takes_too_long_is_ended(own_postgres: PostgresServer) -> None:
    await own_postgres.stop()
    own_postgres.start_timeout_s = 0.0

    with pytest.raises(Refusal, match="not ready after 0 s"):
        await own_postgres.start()

    assert processes_in(own_postgres.data) == []


async def test_an_interrupted_initdb_is_done_again(scratch: Path) -> None:
    server = PostgresServer(scratch / "postgres", free_port(), "x", scratch / "log", FAST)
    (server.root / "data.new" / "base").mkdir(parents=True)

    await server.start()

    assert await server_version(server) >= 18
    await server.stop()


async def server_version(server: PostgresServer) -> int:
    connection = await asyncpg.connect(server.dsn())
    version: int = connection.get_server_version().major
    await connection.close()
    return version


_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from oa_localstack.postgres.server import PostgresServer
from oa_testing.postgres import FAST

async def main(root, port):
    server = PostgresServer(Path(root), int(port), "x", Path(root).parent / "log", FAST)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_it_dies_with_a_killed_supervisor(scratch: Path) -> None:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "PYTHONPATH": paths}
    argv = [sys.executable, "-c", _SUPERVISOR, str(scratch / "postgres"), str(free_port())]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        postmaster = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.send_signal(signal.SIGKILL)

    _, alive = psutil.wait_procs([postmaster], timeout=PATIENCE_S)

    assert alive == []
    deadline = time.monotonic() + PATIENCE_S
    while processes_in(scratch / "postgres" / "data"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
