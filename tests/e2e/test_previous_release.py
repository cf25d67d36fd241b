"""An upgrade under load: the release before works on today's schema, beside today's and with today's services, and
nothing acknowledged is lost.

And what must not work says so: today's code does not start on the schema of the release before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import grpc.aio
import pytest

from oa_localstack.services import ask, python_module
from oa_platform.auth.keys import SigningKey, generate_key, to_jwks
from oa_platform.config.ports import PORT_OFFSETS
from oa_platform.config.shared import token_hash
from oa_platform.postgres.migrate import migrate
from oa_testing.postgres import FAST, ON_FAST, Database, free_port
from oa_testing.stack import StackUnderTest
from oa_testing.waiting import PATIENCE_S
from openagents.common.v1 import cursor_pb2
from openagents.runtime.v1 import event_pb2, log_service_pb2, run_pb2
from services.runtime.tests.rig import (
    AS_PROJECTOR,
    CONTROL_TOKEN,
    GATEWAY_TOKEN,
    PROJECTOR_TOKEN,
    Doors,
    FakeWorker,
    Somebody,
    finish,
    receipt_pem,
    replica,
    runtime_settings,
    text,
)
from tests.e2e.previous import TODAYS, Release, previous_release
from tests.e2e.world import RUN_TIMEOUT_S, Counting, Tail, signed_in

APPENDS = 100
"""Of each writer, one after the other."""
WRITERS = 3
"""At each release."""
PARTITIONS = 16
Seen = set[tuple[str, int]]
"""Run and number of an event."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this one."""
    return previous_release(tmp_path_factory.mktemp("previous"))


def _environment(dsn: str, folder: Path, key: SigningKey, grpc_port: int, ops_port: int) -> dict[str, str]:
    keys = folder / "jwks.json"
    keys.write_text(json.dumps(to_jwks([key.public_key])))
    tokens = {"control": CONTROL_TOKEN, "khala_gateway": GATEWAY_TOKEN, "projector": PROJECTOR_TOKEN}
    return {
        **ON_FAST,
        "OA_DATABASE_URL": dsn,
        "OA_GRPC_ADDRESS": f"127.0.0.1:{grpc_port}",
        "OA_OPS_ADDRESS": f"127.0.0.1:{ops_port}",
        "OA_SERVICE_TOKEN": "runtime's token",
        "OA_ACCEPTED_SERVICES": ",".join(f"{name}={token_hash(token)}" for name, token in tokens.items()),
        "OA_RECEIPT_KEY": receipt_pem(),
        # Nobody is there: the keys are those of the file.
        "OA_CONTROL_URL": f"http://127.0.0.1:{free_port()}",
        "OA_JWKS_CACHE_FILE": str(keys),
        "OA_WORKER_LOST_MS": "600000",
    }


@asynccontextmanager
async def _old_replica(release: Release, database: Database, folder: Path, key: SigningKey) -> AsyncIterator[Doors]:
    grpc_port, ops_port = free_port(), free_port()
    environment = _environment(database.runtime, folder, key, grpc_port, ops_port)
    if not release.starts_on_what_a_newer_one_expanded:
        environment["OA_DATABASE_CHECK_MIGRATIONS"] = "false"
    log = folder / "old.log"
    async with release.running(environment, log) as process:
        async with asyncio.timeout(PATIENCE_S):
            while not (await ask(ops_port)).ready:
                assert process.returncode is None, log.read_text("utf-8")
                await asyncio.sleep(0.05)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            yield Doors(channel)


async def _write(doors: Doors, key: SigningKey) -> Seen:
    """A run from its creation to its end; what was acknowledged."""
    who = Somebody(key)
    worker = FakeWorker(doors, who)
    await worker.attach()
    run_id = (await doors.create(who)).run_id
    lease = (await worker.next("assignment")).assignment.lease_epoch
    acknowledged: Seen = set()
    for number in range(APPENDS):
        appended = await worker.append(run_id, lease, f"k{number}", text(b"x"))
        acknowledged.add((run_id, appended.last_seq))
    acknowledged.add((run_id, (await worker.append(run_id, lease, "end", finish())).last_seq))
    assert (await doors.run(who, run_id)).status == run_pb2.RUN_STATUS_SUCCEEDED
    worker.call.cancel()
    return acknowledged


async def _follow(doors: Doors, seen: Seen) -> None:
    """Everything in the log, each event once, until canceled."""
    after = [cursor_pb2.LogPosition(partition=partition) for partition in range(PARTITIONS)]
    async for batch in doors.log.TailLog(log_service_pb2.TailLogRequest(after=after), metadata=AS_PROJECTOR):
        for event in map(event_pb2.RunEvent.FromString, batch.events):
            assert (event.run_id, event.seq) not in seen
            seen.add((event.run_id, event.seq))


async def test_the_release_before_and_todays_share_the_schema_of_today(
    previous: Release, runtime_database: Database, tmp_path: Path
) -> None:
    key = generate_key()
    assert previous.names == TODAYS.names[: len(previous.names)]
    assert len(previous.names) < len(TODAYS.names)
    async with (
        _old_replica(previous, runtime_database, tmp_path, key) as old,
        replica(runtime_settings(runtime_database), key) as new,
    ):
        both: tuple[Doors, ...] = (old, new)
        followed: list[Seen] = [set() for _ in both]
        followers = [asyncio.create_task(_follow(doors, seen)) for doors, seen in zip(both, followed, strict=True)]
        written = await asyncio.gather(*(_write(doors, key) for doors in both for _ in range(WRITERS)))
        acknowledged = set().union(*written)
        assert len(acknowledged) == len(both) * WRITERS * (APPENDS + 1)
        async with asyncio.timeout(PATIENCE_S):
            while any(not acknowledged <= seen for seen in followed):
                assert not any(follower.done() for follower in followers)
                await asyncio.sleep(0.05)
        for follower in followers:
            follower.cancel()
        assert followed[0] == followed[1]


@pytest.mark.long
@pytest.mark.parametrize("older", [("control", "runtime"), ("projector", "khala_gateway")], ids="-".join)
async def test_a_run_is_followed_listed_and_proved_by_services_of_both_releases(
    older: tuple[str, ...], previous: Release, scratch: Path, tmp_path: Path
) -> None:
    """Whatever travels between two services is written by the one release and read by the other."""
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={name: {"PYTHONPATH": previous.import_path} for name in older},
        commands={name: python_module(f"services.{name}", sys.executable) for name in older},
    )
    counting = Counting(tmp_path / "gates", lines=20)
    await stack.start()
    try:
        async with (
            signed_in(stack, tmp_path / "client") as world,
            world.worker(),
            asyncio.timeout(RUN_TIMEOUT_S),
        ):
            store = world.open_store()
            tail = Tail((await world.client.commands.start_exec(counting.command)).run_id)
            counting.go_on()
            await world.follow(tail, store)
            assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
            await world.assert_proved(tail, store)
            await world.assert_summarised(tail)
    finally:
        await stack.stop()


async def test_todays_code_does_not_start_on_the_schema_of_the_release_before(
    previous: Release, empty_database: Database, tmp_path: Path
) -> None:
    await migrate(empty_database.owner, "runtime", previous.migrations)
    missing = ", ".join(name for name in TODAYS.names if name not in previous.names)
    environment = _environment(empty_database.runtime, tmp_path, generate_key(), free_port(), free_port())
    log = tmp_path / "new.log"
    async with TODAYS.running(environment, log) as process, asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 2
    assert (
        f"runtime: migration_refused: the database lacks {missing}; run `oa admin migrate up` first"
        in log.read_text("utf-8")
    )


async def test_a_migration_that_needs_todays_code_fails_the_release_before(
    previous: Release, runtime_database: Database, tmp_path: Path
) -> None:
    """So the test above would notice one: this plants a column that the code before knows nothing of."""
    key = generate_key()
    connection = await asyncpg.connect(runtime_database.owner)
    try:
        await connection.execute("ALTER TABLE runtime.runs ADD COLUMN planted text NOT NULL")
    finally:
        await connection.close()
    async with _old_replica(previous, runtime_database, tmp_path, key) as old:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await _write(old, key)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "NotNullViolationError" in (tmp_path / "old.log").read_text("utf-8")
