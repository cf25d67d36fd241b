"""Two people in one org: what one of them loses there is over at once, and what is left goes on."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from oa_base.refusal import Refusal
from oa_client.core.schedules import Every
from oa_client.follow.subscription import Subscription
from oa_khala import frames
from oa_khala.topics import org_runs, run_events, user_notifications, user_runs
from oa_localstack.installation.environment import role_dsn
from oa_localstack.installation.secrets import load_or_create
from oa_platform.postgres.planes import OWNER
from oa_runlog.events import ExecSpec, RunSpec
from oa_testing.stack import StackUnderTest
from tests.e2e.devices import REVOKED, Device
from tests.e2e.world import RUN_TIMEOUT_S, STEP_TIMEOUT_S, Tail, World, signed_in

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]
TRUE = RunSpec("exec", ExecSpec(("true",)))


@pytest.fixture
def stack(shared_stack: StackUnderTest) -> StackUnderTest:
    """One for all tests of this module: each leaves it running."""
    return shared_stack


_BOBS = itertools.count(1)
"""Each test has a Bob of its own: one person invites an address only a few times a day."""


class Team:
    """An org of Ada's that Bob is in; both act in it."""

    def __init__(self, ada: World, bob: World, bob_email: str, org_id: str) -> None:
        self.ada, self.bob, self.bob_email, self.org_id = ada, bob, bob_email, org_id

    @classmethod
    async def of(cls, worlds: AsyncExitStack, stack: StackUnderTest, folder: Path, role: str) -> Team:
        """Both sign in; Bob is invited, accepts, and both switch."""
        ada = await worlds.enter_async_context(signed_in(stack, folder / "ada", "ada@example.org"))
        email = f"bob{next(_BOBS)}@example.org"
        bob = await worlds.enter_async_context(signed_in(stack, folder / "bob", email))
        org = await ada.client.commands.orgs.create("team")
        invited = await ada.client.commands.orgs.invite(org.org_id, email.title(), role)
        (got,) = await bob.client.commands.orgs.own_invitations()
        assert (got.invitation_id, got.org_name, got.inviter) == (invited.invitation_id, "team", "ada@example.org")
        assert (await bob.client.commands.orgs.accept(got.invitation_id)).role == role
        for world in (ada, bob):
            await world.client.auth.switch_org(org.org_id)
            assert world.client.auth.credentials().org_id == org.org_id
        return cls(ada, bob, email, org.org_id)

    @property
    def bob_id(self) -> str:
        return self.bob.client.auth.credentials().user_id


async def _followed(world: World, run_id: str, ends: Tail) -> asyncio.Task[None]:
    """Following that has seen the run's first event."""
    begun = asyncio.Event()

    async def begin(_: Subscription, seq: int) -> None:
        begun.set()

    following = asyncio.create_task(world.follow(ends, world.open_store(), begin))
    await begun.wait()
    return following


async def test_who_is_removed_while_watching_sees_no_more_and_goes_on_in_the_own_org(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "member")
        ada, bob = team.ada.client, team.bob.client
        run = await ada.commands.start_exec(["true"])
        watchers = Device(ada, run_events(run.run_id)), Device(bob, run_events(run.run_id))
        staying, ending = [await watcher.watching() for watcher in watchers]
        spare = await watchers[1].grant()
        following = await _followed(team.bob, run.run_id, Tail(run.run_id))

        await ada.commands.orgs.remove(team.org_id, team.bob_id)

        assert await ending.close_code() == REVOKED
        assert await (await watchers[1].socket(spare)).close_code() == REVOKED
        with pytest.raises(Refusal) as ended:
            await following
        assert ended.value.reason == "org_changed"
        await staying.send(frames.Ping(7))
        assert (await staying.next(frames.Heartbeat)).nonce == 7, "the others go on watching"
        with pytest.raises(Refusal) as refused:
            await bob.commands.run(run.run_id)
        assert refused.value.reason == "not_found"
        own = await bob.commands.start_exec(["true"])
        assert own.document["orgId"] == bob.auth.credentials().org_id != team.org_id
        with pytest.raises(Refusal) as refused:
            await bob.auth.switch_org(team.org_id)
        assert refused.value.reason == "not_found"


async def test_who_was_removed_is_told_nothing_more_of_the_runs_that_they_started(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "member")
        ada, bob = team.ada.client.commands, team.bob.client.commands
        secrets = load_or_create(stack.home / "secrets")
        projected = await asyncpg.connect(role_dsn(OWNER, stack.ports, secrets))
        worlds.push_async_callback(projected.close)

        async def rows(topic: str, run_id: str) -> int:
            count = "SELECT count(*) FROM projection.journal WHERE topic = $1 AND run_id = $2"
            return int(await projected.fetchval(count, topic, run_id))

        async def until_told(topic: str, run_id: str, times: int) -> None:
            while await rows(topic, run_id) < times:
                await asyncio.sleep(0.02)

        run_id = (await bob.start_exec(["true"])).run_id
        for topic in (user_runs(team.bob_id), org_runs(team.org_id)):
            await until_told(topic, run_id, 1)
        await ada.orgs.remove(team.org_id, team.bob_id)
        is_lost = "SELECT EXISTS (SELECT FROM projection.lost_places($1, $2))"
        while not await projected.fetchval(is_lost, team.bob_id, team.org_id):
            await asyncio.sleep(0.02)

        await ada.cancel(run_id, "no longer needed")
        await until_told(org_runs(team.org_id), run_id, 2)
        assert await rows(user_runs(team.bob_id), run_id) == 1
        assert await rows(user_notifications(team.bob_id), run_id) == 0, "not even that it has ended"
        with pytest.raises(Refusal, match="org_changed"):
            await bob.runs()
        own = (await bob.start_exec(["true"])).run_id
        await until_told(user_runs(team.bob_id), own, 1)


async def test_nothing_is_done_in_another_org_than_it_was_meant_for(stack: StackUnderTest, tmp_path: Path) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "member")
        await team.ada.client.commands.orgs.remove(team.org_id, team.bob_id)
        with pytest.raises(Refusal) as refused:
            await team.bob.client.commands.start_exec(["echo", "for the team"])
        assert refused.value.reason == "org_changed"
        assert "echo" not in [run.title.split()[0] for run in (await team.bob.client.commands.runs()).runs]


async def test_who_may_less_gets_another_token_and_goes_on_watching(stack: StackUnderTest, tmp_path: Path) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "admin")
        ada, bob = team.ada.client, team.bob.client
        run = await ada.commands.start_exec(["true"])
        device, tail = Device(bob, run_events(run.run_id)), Tail(run.run_id)
        socket = await device.watching()
        following = await _followed(team.bob, run.run_id, tail)

        await ada.commands.orgs.set_role(team.org_id, team.bob_id, "viewer")

        assert await socket.close_code() == REVOKED
        fresh = await device.watching()
        with pytest.raises(Refusal) as refused:
            await bob.commands.cancel(run.run_id)
        assert refused.value.reason == "org_scope_denied"
        await ada.commands.cancel(run.run_id)
        await following
        assert tail.finish is not None
        assert tail.breaks >= 1
        await fresh.send(frames.Ping(7))
        assert (await fresh.next(frames.Heartbeat)).nonce == 7


async def test_a_deleted_org_ends_its_sockets_and_workers_until_it_is_restored(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "member")
        ada, bob = team.ada.client, team.bob.client
        account = await ada.commands.create_service_account("ci")
        await bob.commands.schedules.create("nightly", Every(timedelta(days=1)), TRUE)
        before = await ada.commands.start_exec(["true"])
        tail = Tail(before.run_id)
        async with team.ada.worker(account.api_key) as worker:
            await team.ada.follow(tail, team.ada.open_store())
            watching = await Device(bob, run_events(before.run_id)).watching()
            running = await ada.commands.start_exec(["sleep", "3600"])

            await ada.commands.orgs.delete(team.org_id)
            with pytest.raises(Refusal) as refused:
                await ada.commands.start_exec(["true"])
            assert refused.value.reason == "org_changed"
            assert await watching.close_code() == REVOKED
            assert await asyncio.to_thread(worker.wait, STEP_TIMEOUT_S) != 0, "it ends by itself"
        await ada.commands.orgs.restore(team.org_id)
        await ada.auth.switch_org(team.org_id)
        async with team.ada.worker(account.api_key):
            after = await ada.commands.start_exec(["true"])
            tail = Tail(after.run_id)
            await team.ada.follow(tail, team.ada.open_store())
        assert tail.finish is not None
        assert tail.finish.outcome == "succeeded"
        ended = Tail(running.run_id)
        await team.ada.follow(ended, team.ada.open_store())
        assert ended.finish is not None
        assert ended.finish.outcome == "canceled", "what was at work ended with the org"
        assert await _standing(team.ada, "nightly", "active") == "", "and its schedules come back with it"


async def test_schedules_of_who_was_removed_while_runtime_was_down_stand_still_until_a_member_lets_them_go_on(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as worlds, asyncio.timeout(RUN_TIMEOUT_S):
        team = await Team.of(worlds, stack, tmp_path, "member")
        ada, bob = team.ada.client.commands, team.bob.client
        await bob.commands.schedules.create("nightly", Every(timedelta(days=1)), TRUE)
        stack.kill("runtime")
        await ada.orgs.remove(team.org_id, team.bob_id)
        await stack.start_service("runtime")

        assert f"its owner {team.bob_id} may start no runs here" in await _standing(team.ada, "nightly", "paused")
        for refused_call in (ada.schedules.resume("nightly"), ada.schedules.trigger("nightly", "k")):
            with pytest.raises(Refusal, match="invalid_transition"):
                await refused_call

        with pytest.raises(Refusal, match="org_changed"):
            await bob.commands.runs()
        stack.kill("runtime")
        invited = await ada.orgs.invite(team.org_id, team.bob_email, "member")
        await bob.commands.orgs.accept(invited.invitation_id)
        await stack.start_service("runtime")
        while True:
            try:
                await ada.schedules.resume("nightly")
                break
            except Refusal as refusal:
                if refusal.reason not in ("invalid_transition", "unavailable"):
                    raise
                await asyncio.sleep(0.05)
        assert await _standing(team.ada, "nightly", "active") == ""


async def _standing(world: World, name: str, status: str) -> str:
    """Why a schedule stands still, once it has this status."""
    while True:
        try:
            schedule = (await world.client.commands.schedules.get(name)).schedule
            if schedule.status == status:
                return schedule.pause_reason
        except Refusal as refusal:
            if refusal.reason != "unavailable":
                raise
        await asyncio.sleep(0.05)
