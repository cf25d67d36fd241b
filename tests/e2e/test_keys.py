"""API keys on a whole stack: rotated under load, revoked one by one; and whoever is blocked is out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apps.cli.admin.operator import operators
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.cpython.files import ClientHome
from oa_client.cpython.operators.subjects import SubjectOperators
from oa_client.cpython.site import Site
from oa_khala import frames
from oa_khala.topics import user_runs
from oa_testing.stack import StackUnderTest
from services.khala_gateway.tests.harness import Client as Socket
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Tail, signed_in

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

REVOKED = ("token_revoked", 4401)
PROGRAMS = 4
CALLS_OF_EACH = 5


@pytest.fixture
def stack(shared_stack: StackUnderTest) -> StackUnderTest:
    """One for all tests of this module: each leaves it running."""
    return shared_stack


def program(stack: StackUnderTest, home: Path, key: str) -> Site:
    """Somebody's program that has only a key."""
    return Site(ClientHome(home), stack.urls["control"], api_key=key)


async def watching(client: Client, topic: str, device_id: str) -> Socket:
    """A socket that follows a topic."""
    grant = await client.commands.sync_token([topic], surface="cli")
    socket = await Socket.open(grant.khala_url)
    await socket.send(frames.Hello(grant.token, device_id, "test/1"))
    await socket.next(frames.Welcome)
    await socket.follow(topic)
    return socket


async def refused(client: Client) -> str:
    with pytest.raises(Refusal) as refusal:
        await client.commands.caller()
    return refusal.value.reason


class Load:
    """Programs that sign in with the key of the moment, and call, over and over."""

    def __init__(self, stack: StackUnderTest, folder: Path, key: str) -> None:
        self.key = key
        self.stopped = False
        self.calls: dict[str, int] = {key: 0}
        self._stack = stack
        self._folder = folder

    async def run(self, number: int) -> None:
        while not self.stopped:
            key = self.key
            async with program(self._stack, self._folder / str(number), key).client() as client:
                await client.commands.caller()
            self.calls[key] = self.calls.get(key, 0) + 1

    async def until_called(self, key: str, calls: int) -> None:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while self.calls.get(key, 0) < calls:
                await asyncio.sleep(0.02)


async def test_no_call_fails_while_a_key_is_rotated(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "ann") as world, asyncio.timeout(RUN_TIMEOUT_S):
        keys = world.client.commands.keys
        account = await world.client.commands.create_service_account("ci", scopes=["runs.write"])
        load = Load(stack, tmp_path, account.api_key)
        async with asyncio.TaskGroup() as programs:
            for number in range(PROGRAMS):
                programs.create_task(load.run(number))
            for _ in range(3):
                old = load.key
                await load.until_called(old, CALLS_OF_EACH)
                [newest, *_] = await keys.list(account.service_account_id)
                new = await keys.rotate(newest.api_key_id, overlap_s=3600)
                before = load.calls[old]
                await load.until_called(old, before + CALLS_OF_EACH)
                load.key = new.api_key
                await load.until_called(new.api_key, CALLS_OF_EACH)
            load.stopped = True
        assert len(load.calls) == 4


async def test_a_revoked_key_ends_its_own_worker_and_no_other(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "ann") as world, asyncio.timeout(RUN_TIMEOUT_S):
        commands = world.client.commands
        account = await commands.create_service_account("workers")
        other = await commands.keys.create("other", service_account_id=account.service_account_id)
        [_, first] = await commands.keys.list(account.service_account_id)
        async with world.worker(account.api_key) as revoked:
            run = await commands.start_exec(["true"])
            await world.follow(Tail(run.run_id), world.open_store())
            async with world.worker(other.api_key) as staying:
                await commands.keys.revoke(first.api_key_id)
                assert await asyncio.to_thread(revoked.wait, STEP_TIMEOUT_S) != 0, "it ends by itself"
                run = await commands.start_exec(["true"])
                await world.follow(Tail(run.run_id), world.open_store())
                assert staying.poll() is None


async def test_whoever_is_blocked_is_out_at_once(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "bob", "bob@example.org") as world, asyncio.timeout(RUN_TIMEOUT_S):
        commands, device_id = world.client.commands, world.client.auth.device_id
        caller = await commands.caller()
        token = await commands.keys.create("laptop", scopes=["runs.read"], ttl_s=3600)
        account = await commands.create_service_account("workers")
        topic = user_runs(caller.subject)
        async with (
            program(stack, tmp_path / "program", token.api_key).client() as laptop,
            program(stack, tmp_path / "script", account.api_key).client() as script,
            operators(SubjectOperators, _operators(stack)) as operator,
            world.worker(account.api_key) as worker,
        ):
            assert (await laptop.commands.caller()).subject == caller.subject
            await script.commands.caller()
            sockets = [await watching(one, topic, device_id) for one in (world.client, laptop)]
            await _block_both(operator, caller.email, account.service_account_id)
            for socket in sockets:
                assert await socket.close_code() == REVOKED
            assert await asyncio.to_thread(worker.wait, STEP_TIMEOUT_S) != 0
            assert await refused(laptop) == "invalid_api_key"
            assert await refused(script) == "invalid_api_key"
            assert await refused(world.client) == "token_revoked"
            for who in (caller.email, account.service_account_id):
                assert (await operator.unblock(who)).blocked_at == ""
            assert await refused(laptop) == "invalid_api_key", "a person's token has ended for good"
            assert (await script.commands.caller()).subject == account.service_account_id


async def _block_both(operator: SubjectOperators, *subjects: str) -> None:
    for who in subjects:
        blocked = await operator.block(who)
        assert blocked.blocked_at
        assert blocked.live_sessions == 0
        assert (await operator.show(who)) == blocked


def _operators(stack: StackUnderTest) -> dict[str, str]:
    return {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"127.0.0.1:{stack.ports.control_grpc}"}
