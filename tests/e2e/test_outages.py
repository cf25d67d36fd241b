"""Each part of the stack goes away for longer than every limit that it touches, and comes back: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.models import Run
from oa_client.core.store import WatermarkStore
from oa_client.follow.subscription import Subscription
from oa_localstack.installation.secrets import load_or_create
from oa_localstack.postgres.server import POSTGRES, SUPERUSER
from oa_localstack.services import ask
from oa_platform.config.callers import SERVICES
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import FAST, free_port, scratch_directory
from oa_testing.stack import StackUnderTest
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Counting, Tail, World, signed_in

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

IMPATIENT_RUNTIME = {
    "OA_WORKER_HEARTBEAT_MS": "400",
    "OA_WORKER_QUIET_MS": "1600",
    "OA_WORKER_LOST_MS": "4000",
    "OA_WORKER_WATCH_MS": "100",
    "OA_ATTEMPT_BACKOFF_MS": "100",
    "OA_DATABASE_STATEMENT_TIMEOUT_MS": "1000",
}
"""A runtime that gives workers up after 4 s of silence rather than 30, and a statement after 1 s rather than 10."""
IMPATIENT_GATEWAY = {
    "OA_KHALA_HEARTBEAT_MS": "500",
    "OA_FEED_CARRY_TIMEOUT_MS": "1000",
    "OA_REPLAY_TIMEOUT_MS": "1000",
    "OA_UPSTREAM_CHECK_MS": "3000",
    "OA_UPSTREAM_GONE_MS": "4000",
}
"""A gateway whose clients take 1.25 s of silence for its death, and that gives a source up after 1 s rather than 10."""
OUTAGE_S = 7.0
"""Longer than all of them; that an absence of any length is none is a property (`test_vigil`, `tests/lost`)."""
RESTART_S = 5.0
"""Longer than the lost limit."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[StackUnderTest]:
    """One for all tests: each has its own person, and leaves the stack whole."""
    directory = scratch_directory()
    stack = StackUnderTest(
        directory / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": IMPATIENT_RUNTIME, "khala_gateway": IMPATIENT_GATEWAY},
    )
    await stack.start()
    yield stack
    await stack.stop()
    shutil.rmtree(directory, ignore_errors=True)


def _somebody() -> str:
    return f"{secrets.token_hex(4)}@example.org"


async def test_the_run_of_a_worker_that_died_is_taken_over_by_another(stack: StackUnderTest, tmp_path: Path) -> None:
    counting = Counting(tmp_path / "gates", lines=150)

    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(RUN_TIMEOUT_S):
        store = world.open_store()
        async with world.worker() as first:

            async def kill_the_worker(_: Subscription, seq: int) -> None:
                if tail.stdout and first.poll() is None:
                    os.kill(first.pid, signal.SIGKILL)

            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            following = asyncio.create_task(world.follow(tail, store, kill_the_worker))
            await asyncio.to_thread(first.wait)
            counting.go_on()
            async with world.worker():
                await following

        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        assert tail.stdout.endswith(counting.stdout), "the second attempt's output is whole"
        assert len(tail.stdout) > len(counting.stdout), "and the first one's stays in the log"
        facts = await world.assert_proved(tail, store)
        assert facts.attempts == 2
        await world.assert_summarised(tail)


def _with_children(pid: int) -> list[int]:
    """A process, its children, theirs, and so on."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


@asynccontextmanager
async def _frozen(stack: StackUnderTest, name: str) -> AsyncIterator[None]:
    pids = _with_children(stack.pid(name) or 0)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _away(stack: StackUnderTest, name: str) -> AsyncIterator[None]:
    stack.kill(name)
    yield
    await stack.start_service(name)


# What is gone is noticed at once, and `test_kill_nine` kills each service; what stands still says nothing.
@pytest.mark.parametrize(
    ("name", "outage"), [*((name, _frozen) for name in (POSTGRES, *SERVICES)), (POSTGRES, _away), ("runtime", _away)]
)
async def test_whatever_is_away_nothing_is_lost_and_nothing_done_twice(
    name: str,
    outage: Callable[[StackUnderTest, str], AbstractAsyncContextManager[None]],
    stack: StackUnderTest,
    tmp_path: Path,
) -> None:
    """A run is watched while a part of the stack is away. Its worker lives and works all the time."""
    counting = Counting(tmp_path / "gates", lines=100)
    in_the_middle = asyncio.Event()

    async def note_output(_: Subscription, seq: int) -> None:
        if tail.stdout:
            in_the_middle.set()

    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(RUN_TIMEOUT_S):
        store = world.open_store()
        async with world.worker():
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            following = asyncio.create_task(world.follow(tail, store, note_output))
            await in_the_middle.wait()
            async with outage(stack, name):
                counting.go_on()
                await asyncio.sleep(OUTAGE_S)
                if name in {POSTGRES, "runtime"}:
                    await _gateway_says(stack, "runtime delivers nothing now")
            await _gateway_says(stack, "")
            await following
        await _assert_whole(world, tail, store, counting)


async def test_a_run_goes_on_across_four_restarts_of_the_whole_stack(stack: StackUnderTest, tmp_path: Path) -> None:
    """The worker and its command live all the time: no absence of the authority counts as an attempt."""
    counting = Counting(tmp_path / "gates", lines=100, parts=5)

    async def leave(_: Subscription, seq: int) -> bool:
        return not tail.stdout

    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(3 * RUN_TIMEOUT_S):
        store = world.open_store()
        async with world.worker():
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, leave)
            for away_s in (OUTAGE_S, RESTART_S, RESTART_S, RESTART_S):
                await stack.stop()
                counting.go_on()
                await asyncio.sleep(away_s)
                await stack.start()
            await world.follow(tail, store)
        await _assert_whole(world, tail, store, counting)


async def test_a_worker_attaches_again_without_control(stack: StackUnderTest, tmp_path: Path) -> None:
    """Control and runtime go together, and runtime comes back alone: the worker still has a token that lives."""
    counting = Counting(tmp_path / "gates", lines=100)

    async def leave(_: Subscription, seq: int) -> bool:
        return not tail.stdout

    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(2 * RUN_TIMEOUT_S):
        store = world.open_store()
        async with world.worker():
            run = await world.client.commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            await world.follow(tail, store, leave)
            stack.kill("control")
            stack.kill("runtime")
            await stack.start_service("runtime")
            counting.go_on()
            await asyncio.sleep(OUTAGE_S)
            await stack.start_service("control")
            await world.follow(tail, store)
        await _assert_whole(world, tail, store, counting)


async def _assert_whole(world: World, tail: Tail, store: WatermarkStore, counting: Counting) -> None:
    """The output of one attempt, and nothing else."""
    assert tail.finish is not None
    assert tail.finish.outcome == "succeeded"
    assert (bytes(tail.stdout), bytes(tail.stderr)) == (counting.stdout, counting.stderr)
    assert (await world.assert_proved(tail, store)).attempts == 1
    await world.assert_summarised(tail)


async def test_without_its_database_the_stack_says_so_and_comes_back(stack: StackUnderTest, tmp_path: Path) -> None:
    pids = {name: stack.pid(name) for name in SERVICES}
    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(RUN_TIMEOUT_S):
        before = await world.client.commands.start_exec(["/bin/echo", "hello"])

        stack.kill(POSTGRES)
        with pytest.raises(Refusal) as refusal:
            await world.client.commands.run(before.run_id)
        assert refusal.value.reason in {"unavailable", "deadline_exceeded"}
        answer = await ask(stack.ports.runtime_ops)
        assert (answer.status, "postgres" in answer.body) == (503, True)
        await stack.start_service(POSTGRES)

        after = await _once_it_answers(lambda: world.client.commands.run(before.run_id))
        assert after.run_id == before.run_id
        assert {name: stack.pid(name) for name in SERVICES} == pids
        store = world.open_store()
        async with world.worker():
            tail = Tail(before.run_id)
            await world.follow(tail, store)
        assert tail.stdout == b"hello\n"
        await world.assert_proved(tail, store)


async def test_while_its_database_takes_no_writes_the_stack_says_so_and_goes_on_after_it(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    pids = {name: stack.pid(name) for name in SERVICES}
    async with signed_in(stack, tmp_path / "client", _somebody()) as world, asyncio.timeout(RUN_TIMEOUT_S):
        await _change_database(stack, "ALTER SYSTEM SET default_transaction_read_only = on")
        for port in (stack.ports.control_ops, stack.ports.runtime_ops, stack.ports.projector_ops):
            while "takes no writes now: default_transaction_read_only is on" not in (await ask(port)).body:
                await asyncio.sleep(0.1)
            assert (await ask(port)).status == 503
        await _gateway_says(stack, "runtime delivers nothing now")
        with pytest.raises(Refusal) as refusal:
            await world.client.commands.start_exec(["/bin/echo", "hello"])
        assert refusal.value.info.action is ClientAction.RETRY

        await _change_database(stack, "ALTER SYSTEM RESET default_transaction_read_only")
        run = await _once_it_answers(lambda: world.client.commands.start_exec(["/bin/echo", "hello"]))
        for port in (stack.ports.control_ops, stack.ports.runtime_ops, stack.ports.projector_ops):
            while not (await ask(port)).ready:
                await asyncio.sleep(0.1)
        await _gateway_says(stack, "")
        assert {name: stack.pid(name) for name in SERVICES} == pids
        store = world.open_store()
        async with world.worker():
            tail = Tail(run.run_id)
            await world.follow(tail, store)
        assert tail.stdout == b"hello\n"


async def _gateway_says(stack: StackUnderTest, why: str) -> None:
    """Wait until the gateway is not ready and says `why`; if that is empty, until it is ready."""
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while True:
            answer = await ask(stack.ports.gateway_ops)
            if (not answer.ready and why in answer.body) if why else answer.ready:
                return
            await asyncio.sleep(0.1)


async def _change_database(stack: StackUnderTest, statement: str) -> None:
    passwords = load_or_create(stack.home / "secrets").database_passwords
    dsn = f"postgresql://{SUPERUSER}:{passwords[SUPERUSER]}@127.0.0.1:{stack.ports.postgres}/postgres"
    admin = await asyncpg.connect(dsn)
    try:
        await admin.execute(statement)
        await admin.execute("SELECT pg_reload_conf()")
    finally:
        await admin.close()


async def _once_it_answers(call: Callable[[], Awaitable[Run]]) -> Run:
    """What `call` returns as soon as the database is there again."""
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while True:
            try:
                return await call()
            except Refusal as refusal:
                if refusal.info.action is not ClientAction.RETRY:
                    raise
                await asyncio.sleep(0.1)
