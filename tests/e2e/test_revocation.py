"""What is revoked is over at once: sockets and streams that are open end, and nothing opens another one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from oa_base.refusal import Refusal
from oa_client.core.schedules import Every
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import Site
from oa_client.follow.subscription import Subscription
from oa_khala import frames
from oa_khala.topics import run_events
from oa_platform.config.ports import PORT_OFFSETS
from oa_runlog.events import ExecSpec, RunSpec
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from tests.e2e.devices import REVOKED, Device
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Counting, Tail, World, signed_in

pytestmark = pytest.mark.long

NEVER_LOST = {
    "OA_WORKER_LOST_MS": "3600000",
    "OA_ATTEMPT_BACKOFF_MS": "3600000",
    "OA_ATTEMPT_BACKOFF_MAX_MS": "3600000",
}
"""A worker's silence is none for an hour, and its runs would wait for another: what moves earlier was given back."""


@pytest_asyncio.fixture
async def stack(scratch: Path) -> AsyncIterator[StackUnderTest]:
    stack = StackUnderTest(
        scratch / "home",
        port_base=free_port(tuple(PORT_OFFSETS.values())),
        postgres_settings=FAST,
        overrides={"runtime": NEVER_LOST},
    )
    await stack.start()
    yield stack
    await stack.stop()


async def _waiting_run(world: World) -> str:
    """The topic of a run that waits for a worker."""
    return run_events((await world.client.commands.start_exec(["true"])).run_id)


async def test_whoever_watches_under_a_revoked_session_is_told_so_and_comes_back_by_no_way(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as devices, asyncio.timeout(RUN_TIMEOUT_S):
        world = await devices.enter_async_context(signed_in(stack, tmp_path / "phone"))
        other = await devices.enter_async_context(signed_in(stack, tmp_path / "laptop"))
        topic = await _waiting_run(world)
        phone, laptop = Device(world.client, topic), Device(other.client, topic)
        old, spare = await phone.grant(), await phone.grant()
        held = await world.client.auth.current()
        sockets = [await phone.watching() for _ in range(3)]
        staying = await laptop.watching()

        await other.client.commands.revoke_session(phone.session_id)

        for socket in sockets:
            assert await socket.close_code() == REVOKED
        assert await (await phone.socket(old)).close_code() == REVOKED
        await staying.send(frames.RefreshToken((await laptop.grant()).token))
        await staying.send(frames.Ping(7))
        assert (await staying.next(frames.Heartbeat)).nonce == 7, "another session of the same person goes on"
        await staying.send(frames.RefreshToken(spare.token))
        assert await staying.close_code() == REVOKED, "and ends with a token of the one that was revoked"
        with pytest.raises(Refusal) as refused:
            await world.client.auth.renewed(held)
        assert refused.value.reason == "reauth_required"


async def test_a_client_whose_session_was_revoked_ends_with_that_reason(stack: StackUnderTest, tmp_path: Path) -> None:
    async with AsyncExitStack() as devices, asyncio.timeout(RUN_TIMEOUT_S):
        world = await devices.enter_async_context(signed_in(stack, tmp_path / "phone"))
        other = await devices.enter_async_context(signed_in(stack, tmp_path / "laptop"))
        run = await world.client.commands.start_exec(["true"])
        begun = asyncio.Event()

        async def begin(_: Subscription, seq: int) -> None:
            begun.set()

        following = asyncio.create_task(world.follow(Tail(run.run_id), world.open_store(), begin))
        await begun.wait()
        await other.client.commands.revoke_session(world.client.auth.credentials().session_id)
        with pytest.raises(Refusal) as ended:
            await following
        assert ended.value.reason == "token_revoked"


async def test_a_gateway_that_stood_still_meanwhile_closes_when_it_goes_on(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with signed_in(stack, tmp_path / "phone") as world, asyncio.timeout(RUN_TIMEOUT_S):
        phone = Device(world.client, await _waiting_run(world))
        old = await phone.grant()
        socket = await phone.watching()
        pid = stack.pid("khala_gateway")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await world.client.commands.revoke_session(phone.session_id)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await socket.close_code() == REVOKED
        assert await (await phone.socket(old)).close_code() == REVOKED


async def test_a_gateway_that_starts_again_knows_what_was_revoked_before(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "phone") as world, asyncio.timeout(RUN_TIMEOUT_S):
        phone = Device(world.client, await _waiting_run(world))
        old = await phone.grant()
        stack.kill("khala_gateway")
        await world.client.commands.revoke_session(phone.session_id)
        await stack.start_service("khala_gateway")
        assert await (await phone.socket(old)).close_code() == REVOKED


async def test_the_worker_of_a_revoked_account_ends_and_its_run_goes_to_another_account(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    counting = Counting(tmp_path / "gates", lines=40)
    async with signed_in(stack, tmp_path / "client") as world, asyncio.timeout(RUN_TIMEOUT_S):
        commands, store = world.client.commands, world.open_store()
        revoked = await commands.create_service_account("revoked")
        staying = await commands.create_service_account("staying")
        said = asyncio.Event()

        async def note(_: Subscription, seq: int) -> None:
            if tail.stdout:
                said.set()

        async with world.worker(revoked.api_key) as first:
            run = await commands.start_exec(counting.command)
            tail = Tail(run.run_id)
            following = asyncio.create_task(world.follow(tail, store, note))
            await said.wait()
            async with world.worker(staying.api_key):
                await commands.revoke_service_account(revoked.service_account_id)
                assert await asyncio.to_thread(first.wait, STEP_TIMEOUT_S) != 0, "it ends by itself"
                counting.go_on()
                await following
        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        assert tail.stdout.endswith(counting.stdout), "the second attempt's output is whole"
        assert (await world.assert_proved(tail, store)).attempts == 2


async def test_schedules_of_a_revoked_account_are_paused(stack: StackUnderTest, tmp_path: Path) -> None:
    async with signed_in(stack, tmp_path / "client") as world, asyncio.timeout(RUN_TIMEOUT_S):
        commands = world.client.commands
        account = await commands.create_service_account("ci")
        site = Site(ClientHome(tmp_path / "ci"), stack.urls["control"], api_key=account.api_key)
        spec = RunSpec("exec", ExecSpec(("true",)))
        async with site.client() as ci:
            made = await ci.commands.schedules.create("left", Every(timedelta(days=1)), spec)
        await commands.schedules.create("mine", Every(timedelta(days=1)), spec)

        await commands.revoke_service_account(account.service_account_id)

        while (left := (await commands.schedules.get("left")).schedule).status == made.status:
            await asyncio.sleep(0.05)
        assert (left.status, account.service_account_id in left.pause_reason) == ("paused", True)
        with pytest.raises(Refusal, match="invalid_transition"):
            await commands.schedules.resume("left")
        assert (await commands.schedules.get("mine")).schedule.status == made.status


async def test_what_a_person_has_open_ends_with_the_account_and_runs_stay_with_their_org(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as devices, asyncio.timeout(RUN_TIMEOUT_S):
        boss = await devices.enter_async_context(signed_in(stack, tmp_path / "boss", "boss@example.org"))
        world = await devices.enter_async_context(signed_in(stack, tmp_path / "phone", "leaver@example.org"))
        commands = world.client.commands
        org_id = (await boss.client.commands.orgs.create("team")).org_id
        for one in (boss.client, world.client):
            if one is world.client:
                await boss.client.commands.orgs.invite(org_id, "leaver@example.org", "member")
                (invited,) = await commands.orgs.own_invitations()
                await commands.orgs.accept(invited.invitation_id)
            await one.auth.switch_org(org_id)
        topic = await _waiting_run(world)
        phone = Device(world.client, topic)
        old, socket = await phone.grant(), await phone.watching()
        made = await commands.schedules.create("left", Every(timedelta(days=1)), RunSpec("exec", ExecSpec(("true",))))

        await commands.account.delete(world.client.auth.credentials().user_id)

        assert await socket.close_code() == REVOKED
        assert await (await phone.socket(old)).close_code() == REVOKED
        while (left := (await boss.client.commands.schedules.get("left")).schedule).status == made.status:
            await asyncio.sleep(0.05)
        assert left.status == "paused"
        run = await boss.client.commands.run(topic.split(":")[1])
        assert not run.status.startswith("cancel"), "it belongs to the org"
