"""Two people with runs, sessions and service accounts of their own, and a worker: what good requests are about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
from google.protobuf.json_format import ParseDict

from oa_platform.auth.authenticator import AUTHORIZATION_KEY
from oa_platform.system.ids import new_id
from oa_testing.plain_http import plain_http
from oa_testing.stack import StackUnderTest
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1 import worker_service_pb2 as pb
from openagents.runtime.v1.worker_service_pb2_grpc import WorkerServiceStub
from services.control.provider_sign_in.tests.openid import REDIRECT, OpenId
from tests.e2e.world import code_for
from tests.fuzz.doors import Edge, Person, Rpc
from tests.fuzz.watch import Watch

ADAPTER = "fuzz"
"""What the scene's worker has; runs of other adapters wait for ever."""
_HEARTBEAT_S = 5.0
_WAIT_S = 60.0
_AUTH = "openagents.control.v1.AuthService"
_PROVIDERS = "openagents.control.v1.ProviderSignInService"
_KEYS = "openagents.control.v1.ApiKeyService"
_ACCOUNTS = "openagents.control.v1.ServiceAccountService"
_RUNS = "openagents.runtime.v1.RunService"
_SCHEDULES = "openagents.runtime.v1.ScheduleService"


@dataclass(frozen=True)
class Lease:
    """A run that a worker of ours holds."""

    run_id: str
    epoch: int


@dataclass(frozen=True)
class Org:
    """An org of ann's, and its other member."""

    org_id: str
    member_id: str


class Worker:
    """A worker that takes every run of its adapter and does nothing with it."""

    def __init__(self, channel: grpc.aio.Channel, token: str, name: str = "fuzz", adapter: str = ADAPTER) -> None:
        self._hello = pb.WorkerHello(name=name, adapters=[adapter], max_concurrent_runs=1000)
        self._stub = WorkerServiceStub(channel)
        self.metadata = ((AUTHORIZATION_KEY, f"Bearer {token}"),)
        self.token = token
        self.worker_id = ""
        self.leases: asyncio.Queue[Lease] = asyncio.Queue()

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[None]:
        """The time that it is attached."""
        stream: Any = self._stub.Attach(metadata=self.metadata)
        await stream.write(pb.AttachRequest(attach=self._hello))
        self.worker_id = (await stream.read()).attached.worker_id
        tasks = [asyncio.create_task(self._listen(stream)), asyncio.create_task(self._beat(stream))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.cancel()

    async def _listen(self, stream: Any) -> None:
        while (message := await stream.read()) is not grpc.aio.EOF:
            if message.HasField("assignment"):
                assignment = message.assignment
                await self.leases.put(Lease(assignment.run.run_id, assignment.lease_epoch))

    async def _beat(self, stream: Any) -> None:
        while True:
            await stream.write(pb.AttachRequest(heartbeat=pb.WorkerHeartbeat()))
            await asyncio.sleep(_HEARTBEAT_S)

    async def append(self, lease: Lease, event: event_pb2.EventBody) -> None:
        """Append to a run that it holds."""
        request = pb.AppendEventsRequest(
            run_id=lease.run_id, lease_epoch=lease.epoch, idempotency_key="asked", events=[event]
        )
        await self._stub.AppendEvents(request, metadata=self.metadata, timeout=_WAIT_S)

    async def finish(self, lease: Lease) -> None:
        """End a run well."""
        finished = event_pb2.RunFinished(outcome=event_pb2.RUN_OUTCOME_SUCCEEDED)
        request = pb.AppendEventsRequest(
            run_id=lease.run_id,
            lease_epoch=lease.epoch,
            idempotency_key="finish",
            events=[event_pb2.EventBody(run_finished=finished)],
        )
        await self._stub.AppendEvents(request, metadata=self.metadata, timeout=_WAIT_S)


class Scene:
    """Everything that a good request can name, made when it is asked for. `ann` calls; `bob` is somebody else."""

    def __init__(self, stack: StackUnderTest, openid: OpenId) -> None:
        self.stack = stack
        self.openid = openid
        self.edge = Edge(stack.urls["control"])
        self.rpc = Rpc(stack)
        self.watch = Watch(stack)
        self.ann: Person
        self.bob: Person
        self.going: Person
        """Somebody whose account a good request deletes."""
        self.worker: Worker
        self.foreign: dict[str, str] = {}
        """Prefix of an id -> one that is bob's."""
        self._finished_run = ""
        self.spare_worker_id = ""
        """A worker of ann's that nobody speaks for."""

    @asynccontextmanager
    async def set(self) -> AsyncIterator[Scene]:
        """The scene, for a block."""
        self.ann, self.bob = await self.sign_in("ann"), await self.sign_in("bob")
        self.going = self.ann
        self.worker = Worker(self.rpc.channels["runtime"], await self.worker_token(self.ann))
        async with self.worker.attached():
            await self._set_foreign()
            try:
                yield self
            finally:
                with suppress(asyncio.CancelledError):
                    await self.edge.close()
                    await self.watch.close()
        await self.rpc.close()

    async def _set_foreign(self) -> None:
        bob = self.bob
        spare = Worker(self.rpc.channels["runtime"], self.worker.token, "spare", "nothing")
        async with spare.attached():
            self.spare_worker_id = spare.worker_id
        worker = Worker(self.rpc.channels["runtime"], await self.worker_token(bob))
        async with worker.attached():
            self.foreign = {
                "run": await self.run(bob),
                "sch": await self.schedule(bob),
                "ses": bob.session_id,
                "sva": (await self.service_account(bob))["service_account"],
                "apk": await self.api_key(bob),
                "usr": bob.user_id,
                "org": bob.org_id,
                "wrk": worker.worker_id,
                "inv": await _invitation(
                    self.watch, await _new_org(self.watch, bob), f"{new_id('key')}@example.org", bob
                ),
            }

    # ------------------------------------------------------------------------------------------------- people

    async def opened(self) -> None:
        """Open the site again, and wait until the edge knows."""
        await self.rpc.operate("RouteService/EndMaintenance", {})
        async with asyncio.timeout(_WAIT_S), plain_http() as http:
            while (await http.get(self.stack.urls["control"])).status_code == httpx.codes.SERVICE_UNAVAILABLE:
                await asyncio.sleep(0.01)

    async def challenge(self, name: str) -> tuple[str, str, str]:
        """A sign-in that has begun: challenge, code, device."""
        email, device = f"{name}@example.org", new_id("dev")
        begun = await self.edge.call(f"{_AUTH}/StartChallenge", {"email": email, "device_id": device})
        return begun["challengeId"], await code_for(self.stack, begun["challengeId"]), device

    async def provider_sign_in(self) -> dict[str, str]:
        """A sign-in that was confirmed at the provider: the request that finishes it."""
        device = new_id("dev")
        request = {"provider": "oidc", "device_id": device, "redirect_uri": REDIRECT}
        begun = await self.edge.call(f"{_PROVIDERS}/StartProviderSignIn", request)
        brought = await asyncio.to_thread(self.openid.page, begun["authorizationUrl"])
        return {"sign_in_id": begun["signInId"], "device_id": device, **brought}

    async def sign_in(self, name: str) -> Person:
        """A new session of a person, on a device of its own."""
        challenge, code, device = await self.challenge(name)
        request = {"challenge_id": challenge, "code": code, "device_id": device}
        answer = await self.edge.call(f"{_AUTH}/VerifyChallenge", request)
        tokens = answer["tokens"]
        return Person(
            answer["userId"],
            answer["orgId"],
            answer["sessionId"],
            device,
            tokens["accessToken"],
            tokens["refreshToken"],
        )

    async def org(self, *, two_owners: bool = False) -> Org:
        """The only org of ann's beside her own: the one before is none of hers any more."""
        statement = (
            "DELETE FROM control.memberships m USING control.orgs o WHERE o.org_id = m.org_id AND m.user_id = $1"
        )
        await self.watch.fetchval(f"{statement} AND o.personal_of IS NULL", self.ann.user_id)
        org_id, member_id = await _new_org(self.watch, self.ann), new_id("usr")
        email, role = f"{member_id}@example.org".lower(), "owner" if two_owners else "member"
        await self.watch.fetchval("INSERT INTO control.users VALUES ($1, $2, now())", member_id, email)
        await self.watch.fetchval("INSERT INTO control.memberships VALUES ($1, $2, $3, now())", org_id, member_id, role)
        return Org(org_id, member_id)

    async def invitation(self, org_id: str) -> str:
        """An open one into an org of ann's."""
        return await _invitation(self.watch, org_id, f"{new_id('key')}@example.org", self.ann)

    async def invitation_of_ann(self) -> str:
        """An open one of ann's, into an org of bob's."""
        return await _invitation(self.watch, await _new_org(self.watch, self.bob), "ann@example.org", self.bob)

    async def service_account(self, person: Person) -> dict[str, str]:
        """A new one: `service_account` is its id, `api_key` its key, `api_key_id` that one's id."""
        answer = await self.edge.call(f"{_ACCOUNTS}/CreateServiceAccount", {"name": "fuzz"}, person.access_token)
        account_id = answer["serviceAccount"]["serviceAccountId"]
        return {"service_account": account_id, "api_key": answer["apiKey"], "api_key_id": answer["apiKeyId"]}

    async def api_key(self, person: Person) -> str:
        """The id of a new personal access token."""
        answer = await self.edge.call(f"{_KEYS}/CreateApiKey", {"name": "n", "ttl_seconds": 3600}, person.access_token)
        return str(answer["key"]["apiKeyId"])

    async def worker_token(self, person: Person) -> str:
        """A token for a worker of the person's org."""
        key = (await self.service_account(person))["api_key"]
        answer = await self.edge.call(f"{_ACCOUNTS}/ExchangeKey", {"api_key": key, "use": "TOKEN_USE_WORKER"})
        return str(answer["token"])

    async def sync_token(self, person: Person, *topics: str) -> str:
        """A token for Khala."""
        path = "openagents.control.v1.SyncTokenService/MintSyncToken"
        answer = await self.edge.call(path, {"topics": topics, "surface": "cli"}, person.access_token)
        return str(answer["token"])

    # ------------------------------------------------------------------------------------------------- runs

    async def run(self, person: Person, adapter: str = "none") -> str:
        """A new run."""
        request = {"idempotency_key": new_id("key"), "spec": {"adapter": adapter, "prompt": {"text": "x"}}}
        answer = await self.edge.call(f"{_RUNS}/CreateRun", request, person.access_token)
        return str(answer["run"]["runId"])

    async def schedule(self, person: Person) -> str:
        """A new schedule, whose next time is not soon."""
        spec = {"adapter": "none", "prompt": {"text": "x"}}
        timing = {"cron": {"expression": "0 0 1 1 *", "time_zone": "Europe/Zurich"}}
        request = {"idempotency_key": new_id("key"), "name": new_id("key").lower(), "spec": spec, **timing}
        answer = await self.edge.call(f"{_SCHEDULES}/CreateSchedule", request, person.access_token)
        return str(answer["schedule"]["scheduleId"])

    async def lease(self) -> Lease:
        """A run of ann's that her worker holds."""
        run_id = await self.run(self.ann, ADAPTER)
        async with asyncio.timeout(_WAIT_S):
            while (lease := await self.worker.leases.get()).run_id != run_id:
                pass
        return lease

    async def append(self, lease: Lease, event: Mapping[str, object]) -> None:
        """Append an event, as JSON has it, to a run that ann's worker holds."""
        await self.worker.append(lease, ParseDict(dict(event), event_pb2.EventBody()))

    async def finished_run(self) -> str:
        """The run of ann's that has ended, with a receipt that stands in the log of receipts."""
        if self._finished_run:
            return self._finished_run
        lease = await self.lease()
        await self.worker.finish(lease)
        statement = "SELECT count(*) FROM runtime.receipt_leaves WHERE run_id = $1"
        async with asyncio.timeout(_WAIT_S):
            while not await self.watch.fetchval(statement, lease.run_id):
                await asyncio.sleep(0.05)
        self._finished_run = lease.run_id
        return lease.run_id

    async def summarised_run(self) -> str:
        """A run of ann's that the read model knows."""
        run_id = await self.run(self.ann)
        statement = "SELECT count(*) FROM projection.run_summaries WHERE run_id = $1"
        async with asyncio.timeout(_WAIT_S):
            while not await self.watch.fetchval(statement, run_id):
                await asyncio.sleep(0.05)
        return run_id


async def _new_org(watch: Watch, owner: Person) -> str:
    org_id = new_id("org")
    await watch.fetchval("INSERT INTO control.orgs VALUES ($1, 'team', NULL, now())", org_id)
    statement = "INSERT INTO control.memberships VALUES ($1, $2, 'owner', now())"
    await watch.fetchval(statement, org_id, owner.user_id)
    return org_id


async def _invitation(watch: Watch, org_id: str, email: str, inviter: Person) -> str:
    invitation_id = new_id("inv")
    await watch.fetchval(
        """INSERT INTO control.invitations
            (invitation_id, org_id, email, role, invited_by, created_at, sent_at, expires_at)
        VALUES ($1, $2, lower($3), 'member', $4, now(), now(), now() + interval '7 days')""",
        invitation_id,
        org_id,
        email,
        inviter.user_id,
    )
    return invitation_id
