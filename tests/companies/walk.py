"""Several people in several orgs, through the real edge: what happens is what a small model says, call by call.

The model knows who has which role where, which invitations are open, and in which org each session acts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import jwt

from oa_platform.auth.authenticator import SERVICE_TOKEN_KEY
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import policy_service_pb2
from services.control.edge.door.methods import open_methods
from services.control.invitations.limits import MAX_PER_HOUR, MAX_TO_ADDRESS_BY_ONE_PER_DAY, MAX_TO_ADDRESS_PER_DAY
from services.control.orgs.domain import Org as StoredOrg
from services.control.orgs.domain import User
from services.control.policy.domain import Role, Scoped, SessionOnly
from services.control.sessions.domain import Session, StandingSession, access_token_id, refresh_token
from services.control.tests.harness import (
    GATEWAY_TOKEN,
    HMAC_KEY,
    Control,
    new_id,
    reason_of,
)
from services.control.tokens.app import TokenIssuer
from services.control.tokens.door import JwtSigner
from services.control.wiring import Tables

PEOPLE = 4
ROLES = ("owner", "admin", "member", "viewer")
RUN = {"adapter": "exec", "exec": {"argv": ["git", "log"]}}
ADMINS = ("owner", "admin")
METHODS = open_methods()
ASKED_EVERY = 3
"""For one of so many calls PolicyService is asked, too."""


@dataclass
class Person:
    """Somebody with a session; `token_org` is what the access token is for, `acts_in` what the session is."""

    email: str
    user_id: str
    own_org: str
    device_id: str
    access: str
    refresh: str
    token_org: str
    acts_in: str


@dataclass
class Org:
    """An org as it should be. `invitations`: id -> (address, role, inviter), of those that are open."""

    members: dict[str, str]
    personal: bool = False
    deleted: bool = False
    invitations: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    invited: Counter[str] = field(default_factory=Counter)

    def role(self, person: Person) -> str:
        """The role of a member, empty for others."""
        return self.members.get(person.user_id, "")

    def only_owner(self, user_id: str) -> bool:
        """Whether without this member there is no owner."""
        return self.members[user_id] == "owner" and list(self.members.values()).count("owner") == 1

    def closed(self) -> str:
        """Why its members don't change."""
        return "personal_org" if self.personal else "org_deleted" if self.deleted else ""


class People:
    """Everybody, what they share, and what the model knows of it."""

    def __init__(self, control: Control, policy: Any, admin: asyncpg.Pool[Any], seed: int) -> None:
        self.control = control
        self.policy = policy
        self.admin = admin
        self.seed = seed
        self.chance = random.Random(seed)
        self.people: dict[str, Person] = {}
        self.orgs: dict[str, Org] = {}
        self.runs: dict[str, str] = {}
        self.invited: Counter[str] = Counter()
        self.invited_by: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.calls = 0
        self.denied_by: Counter[str] = Counter()

    async def begin(self) -> None:
        """Everybody is signed in, in some org of theirs; who is in which, and as what, is by chance."""
        now = datetime.now(UTC)
        async with self.admin.acquire() as connection, connection.transaction():
            tables = Tables(connection, max_clock_lead=timedelta())
            users = [
                await self._new_user(tables, f"w{self.seed}p{number}@example.org", now) for number in range(PEOPLE)
            ]
            for _ in range(self.chance.choice((0, 1, 1, 2))):
                await self._new_org(tables, users, now)
            for user in users:
                await self._sign_in(tables, user, now)

    async def _new_user(self, tables: Tables, email: str, now: datetime) -> User:
        user = User(new_id("usr"), email, new_id("org"))
        await tables.people.add(user, "own", now)
        self.orgs[user.org_id] = Org({user.user_id: "owner"}, personal=True)
        return user

    async def _new_org(self, tables: Tables, users: list[User], now: datetime) -> None:
        owner, *others = self.chance.sample(users, self.chance.randint(2, len(users)))
        org_id, roles = new_id("org"), {one.user_id: self.chance.choice(ROLES) for one in others}
        await tables.orgs.add(StoredOrg(org_id, "n", personal=False, created_at=now), owner.user_id)
        for user_id, role in roles.items():
            await tables.members.add(org_id, user_id, Role(role), now)
        self.orgs[org_id] = Org({owner.user_id: "owner"} | roles)

    async def _sign_in(self, tables: Tables, user: User, now: datetime) -> None:
        acts_in = self.chance.choice([key for key, org in self.orgs.items() if user.user_id in org.members])
        session = Session(new_id("ses"), user.user_id, acts_in, new_id("dev"), now, now)
        await tables.sessions.add(session)
        principal = StandingSession(session, Role(self.orgs[acts_in].members[user.user_id])).principal
        jti = access_token_id(session.session_id, 0)
        issuer = TokenIssuer(JwtSigner(self.control.key))
        access = issuer.for_session(principal, jti, now, session.access_ttl).token
        refresh = refresh_token(HMAC_KEY.encode(), session.session_id, 0)
        self.people[user.user_id] = Person(
            user.email, user.user_id, user.org_id, session.device_id, access, refresh, acts_in, acts_in
        )

    async def call(self, person: Person, method: str, body: object, expected: str = "") -> dict[str, Any]:
        """Call, and find what the model expects. A token of another org than the session's is good for nothing."""
        if person.token_org != person.acts_in:
            assert reason_of(await self.control.call(method, body, person.access)) == "org_changed"
            assert (await self.decided(person, method)).reason == "org_changed"
            await self.refresh(person)
        self.calls += 1
        decision = await self.decided(person, method) if self.calls % ASKED_EVERY == 0 else None
        response = await self.control.call(method, body, person.access)
        reason = "" if response.status_code == 200 else reason_of(response)
        assert reason == expected, (method, body, response.text)
        # What is denied here is denied there. The use case behind the gate may deny more, in the org that it is about.
        of_the_gate = isinstance(METHODS[f"openagents.{method.replace('.', '.v1.', 1)}"].access, Scoped)
        if decision and (not decision.allowed or (of_the_gate and reason in ("missing_scope", "org_scope_denied"))):
            assert decision.reason == reason, (method, body, decision)
            self.denied_by[policy_service_pb2.PolicyRule.Name(decision.rule)] += 1
        self.seen[method.rpartition("/")[2], reason] += 1
        answer: dict[str, Any] = response.json()
        return answer

    async def decided(self, person: Person, method: str) -> policy_service_pb2.AuthorizeResponse:
        """What PolicyService says of the person and what the contract asks for the method."""
        access = METHODS[f"openagents.{method.replace('.', '.v1.', 1)}"].access
        claims = jwt.decode(person.access, options={"verify_signature": False})
        who = {name: claims[name] for name in ("kind", "org_id", "scopes", "session_id", "device_id")}
        request = policy_service_pb2.AuthorizeRequest(
            principal=principal_pb2.Principal(subject=claims["sub"], **who),
            required_scope=access.scope if isinstance(access, Scoped) else "",
            session_only=isinstance(access, SessionOnly),
        )
        answer = await self.policy.Authorize(request, metadata=((SERVICE_TOKEN_KEY, GATEWAY_TOKEN),))
        assert isinstance(answer, policy_service_pb2.AuthorizeResponse)
        return answer

    async def refresh(self, person: Person) -> None:
        """A new access token, for the org that the session acts in."""
        body = {"refreshToken": person.refresh, "deviceId": person.device_id}
        tokens = (await self.control.ok("control.AuthService/RefreshSession", body))["tokens"]
        person.access, person.refresh, person.token_org = (
            tokens["accessToken"], tokens["refreshToken"], tokens["orgId"],
        )  # fmt: skip
        assert person.token_org == person.acts_in

    def out_of(self, org_id: str, *user_ids: str) -> None:
        """Sessions that acted there act in the own org."""
        for user_id in user_ids:
            person = self.people[user_id]
            if person.acts_in == org_id:
                person.acts_in = person.own_org

    async def a_day_passes(self) -> None:
        """Only for the limits of invitations: nothing else goes by when they were made."""
        statement = "UPDATE control.invitations SET created_at = created_at - interval '1 day' WHERE email = ANY($1)"
        await self.admin.execute(statement, [person.email for person in self.people.values()])
        self.invited.clear()
        self.invited_by.clear()
        for org in self.orgs.values():
            org.invited.clear()

    def somebody(self, org: Org) -> Person:
        """Anybody, more often a member."""
        members = [self.people[user_id] for user_id in org.members]
        return self.chance.choice(members if self.chance.random() < 0.6 else list(self.people.values()))


class Walk(People):
    """One random walk through all that can be done."""

    async def create(self, me: Person, *_: Any) -> None:
        if sum(not org.personal for org in self.orgs.values()) >= PEOPLE - 1:
            return
        made = await self.call(me, "control.OrgService/CreateOrg", {"name": "n"})
        self.orgs[made["org"]["orgId"]] = Org({me.user_id: "owner"})

    async def rename(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ADMINS) or ("org_deleted" if org.deleted else "")
        body = {"orgId": org_id, "name": f"n{self.chance.random()}"}
        await self.call(me, "control.OrgService/RenameOrg", body, expected)

    async def delete(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ("owner",)) or ("personal_org" if org.personal else "")
        await self.call(me, "control.OrgService/DeleteOrg", {"orgId": org_id}, expected)
        if not expected:
            org.deleted = True
            self.out_of(org_id, *org.members)

    async def restore(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ("owner",))
        await self.call(me, "control.OrgService/RestoreOrg", {"orgId": org_id}, expected)
        if not expected:
            org.deleted = False

    async def leave(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ROLES) or org.closed()
        expected = expected or ("last_owner" if org.only_owner(me.user_id) else "")
        await self.call(me, "control.MemberService/LeaveOrg", {"orgId": org_id}, expected)
        if not expected:
            del org.members[me.user_id]
            self.out_of(org_id, me.user_id)

    async def set_role(self, me: Person, org_id: str, org: Org, other: Person) -> None:
        role = self.chance.choice(ROLES)
        expected = _denied(org, me, ADMINS) or org.closed() or ("" if org.role(other) else "not_found")
        if not expected and "owner" in (role, org.role(other)) and org.role(me) != "owner":
            expected = "org_scope_denied"
        if not expected and role != "owner" and org.only_owner(other.user_id):
            expected = "last_owner"
        body = {"orgId": org_id, "userId": other.user_id, "role": f"ORG_ROLE_{role.upper()}"}
        await self.call(me, "control.MemberService/SetMemberRole", body, expected)
        if not expected:
            org.members[other.user_id] = role

    async def remove(self, me: Person, org_id: str, org: Org, other: Person) -> None:
        expected = "invalid_value" if other is me else _denied(org, me, ADMINS) or org.closed()
        expected = expected or ("" if org.role(other) else "not_found")
        if not expected and org.role(other) == "owner" and org.role(me) != "owner":
            expected = "org_scope_denied"
        body = {"orgId": org_id, "userId": other.user_id}
        await self.call(me, "control.MemberService/RemoveMember", body, expected)
        if not expected:
            del org.members[other.user_id]
            self.out_of(org_id, other.user_id)

    async def transfer(self, me: Person, org_id: str, org: Org, other: Person) -> None:
        expected = "invalid_value" if other is me else _denied(org, me, ("owner",)) or org.closed()
        expected = expected or ("" if org.role(other) else "not_found")
        body = {"orgId": org_id, "userId": other.user_id}
        await self.call(me, "control.MemberService/TransferOwnership", body, expected)
        if not expected:
            org.members |= {other.user_id: "owner", me.user_id: "admin"}

    async def invite(self, me: Person, org_id: str, org: Org, other: Person) -> None:
        role = self.chance.choice(ROLES)
        expected = _denied(org, me, ADMINS) or org.closed()
        if not expected and role == "owner" and org.role(me) != "owner":
            expected = "org_scope_denied"
        expected = expected or ("already_exists" if org.role(other) else "")
        if not expected and (
            org.invited.total() >= MAX_PER_HOUR
            or self.invited[other.email] >= MAX_TO_ADDRESS_PER_DAY
            or self.invited_by[me.user_id, other.email] >= MAX_TO_ADDRESS_BY_ONE_PER_DAY
        ):
            expected = "rate_limited"
        body = {"orgId": org_id, "email": other.email.upper(), "role": f"ORG_ROLE_{role.upper()}"}
        answer = await self.call(me, "control.InvitationService/CreateInvitation", body, expected)
        if not expected:
            org.invited[other.email] += 1
            self.invited[other.email] += 1
            self.invited_by[me.user_id, other.email] += 1
            org.invitations = {key: one for key, one in org.invitations.items() if one[0] != other.email}
            org.invitations[answer["invitation"]["invitationId"]] = (other.email, role, me.user_id)

    async def answer(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        found = [(key, where) for where in self.orgs.values() for key in where.invitations]
        invitation_id, where = self.chance.choice(found) if found else (new_id("inv"), org)
        email, role, inviter = where.invitations.get(invitation_id, ("", "", ""))
        if self.chance.random() < 0.6:
            me = next((one for one in self.people.values() if one.email == email), me)
        expected = "" if email == me.email else "not_found"
        if self.chance.random() < 0.25:
            await self.call(
                me, "control.InvitationService/DeclineInvitation", {"invitationId": invitation_id}, expected
            )
        else:
            invites = where.members.get(inviter)
            if not expected and (invites not in ADMINS or (role == "owner" and invites != "owner")):
                expected = "not_found"
            expected = expected or ("org_deleted" if where.deleted else "")
            method = "control.InvitationService/AcceptInvitation"
            await self.call(me, method, {"invitationId": invitation_id}, expected)
            if not expected:
                where.members.setdefault(me.user_id, role)
        if not expected:
            del where.invitations[invitation_id]

    async def switch(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ROLES) or ("org_deleted" if org.deleted else "")
        await self.call(me, "control.SessionService/SwitchOrg", {"orgId": org_id}, expected)
        if not expected:
            me.acts_in = org_id

    async def look(self, me: Person, org_id: str, org: Org, *_: Any) -> None:
        expected = _denied(org, me, ROLES)
        answer = await self.call(me, "control.MemberService/ListMembers", {"orgId": org_id}, expected)
        if not expected:
            shown = {one["userId"]: one["role"].removeprefix("ORG_ROLE_").lower() for one in answer["members"]}
            assert shown == org.members
        listed = (await self.call(me, "control.OrgService/ListOrgs", {}))["orgs"]
        assert {one["orgId"] for one in listed} == {key for key, one in self.orgs.items() if one.role(me)}

    async def work(self, me: Person, *_: Any) -> None:
        role = self.orgs[me.acts_in].role(me)
        body = {"idempotencyKey": new_id("key"), "spec": RUN}
        expected = "org_scope_denied" if role == "viewer" else ""
        answer = await self.call(me, "runtime.RunService/CreateRun", body, expected)
        if not expected:
            assert answer["run"]["orgId"] == me.acts_in
            self.runs[answer["run"]["runId"]] = me.acts_in
        if self.runs:
            run_id, owner = self.chance.choice(list(self.runs.items()))
            expected = "" if owner == me.acts_in else "not_found"
            await self.call(me, "runtime.RunService/GetRun", {"runId": run_id}, expected)

    async def watch(self, me: Person, org_id: str, *_: Any) -> None:
        topics = [f"org:{org_id}:runs", f"user:{me.user_id}:runs"]
        answer = await self.call(me, "control.SyncTokenService/MintSyncToken", {"topics": topics})
        granted = [grant.get("granted", False) for grant in answer["grants"]]
        assert granted == [org_id == me.acts_in, True]

    async def make_key(self, me: Person, *_: Any) -> None:
        expected = "" if self.orgs[me.acts_in].role(me) in ADMINS else "org_scope_denied"
        method = "control.ServiceAccountService/CreateServiceAccount"
        made = await self.call(me, method, {"name": "n"}, expected)
        assert expected or made["serviceAccount"]["orgId"] == me.acts_in

    async def delete_account(self, me: Person, *_: Any) -> None:
        """Nobody is left without an owner; the address opens an account that has nothing of the one before."""
        mine = {key: org for key, org in self.orgs.items() if org.role(me)}
        going = {key for key, org in mine.items() if len(org.members) == 1}
        owned = {key for key, org in mine.items() if not org.deleted and org.only_owner(me.user_id)}
        blocking = owned - going
        shown = (await self.call(me, "control.AccountService/GetAccountDeletion", {}))["deletion"]
        names = ("endingOrgs", "leftOrgs", "blockingOrgs")
        assert [{one["orgId"] for one in shown.get(name, [])} for name in names] == [
            going,
            mine.keys() - going - blocking,
            blocking,
        ]
        expected = "last_owner" if blocking else ""
        await self.call(me, "control.AccountService/DeleteAccount", {"userId": me.user_id}, expected)
        if not expected:
            assert reason_of(await self.control.call("control.OrgService/ListOrgs", {}, me.access)) == "token_revoked"
            await self._gone(me, mine, going)

    async def _gone(self, me: Person, mine: dict[str, Org], going: set[str]) -> None:
        """The account is deleted, and its person has another one at once."""
        for key, org in mine.items():
            del org.members[me.user_id]
            if key in going:
                del self.orgs[key]
        for org in self.orgs.values():
            org.invitations = {key: one for key, one in org.invitations.items() if one[0] != me.email}
            del org.invited[me.email]
        del self.people[me.user_id], self.invited[me.email]
        self.invited_by = Counter({key: count for key, count in self.invited_by.items() if key[1] != me.email})
        now = datetime.now(UTC)
        async with self.admin.acquire() as connection, connection.transaction():
            tables = Tables(connection, max_clock_lead=timedelta())
            await self._sign_in(tables, await self._new_user(tables, me.email, now), now)

    async def go(self, steps: int) -> None:
        """Take so many steps from a state by chance."""
        await self.begin()
        ways: list[Callable[..., Awaitable[None]]] = [
            *(self.create, self.rename, self.delete, self.make_key, self.watch, self.delete_account),
            *(self.transfer, self.set_role, self.look, self.leave, self.remove) * 3,
            *(self.restore, self.switch) * 4,
            *(self.invite, self.work, self.answer) * 6,
        ]
        for step in range(steps):
            if step % 50 == 49:
                await self.a_day_passes()
            shared = {key: org for key, org in self.orgs.items() if not org.personal}
            chosen = shared if shared and self.chance.random() < 0.85 else self.orgs
            org_id, org = self.chance.choice(list(chosen.items()))
            me, other = self.somebody(org), self.somebody(org)
            await self.chance.choice(ways)(me, org_id, org, other)
            assert all(one.deleted or "owner" in one.members.values() for one in self.orgs.values())


def _denied(org: Org, me: Person, roles: tuple[str, ...]) -> str:
    role = org.role(me)
    return "" if role in roles else "org_scope_denied" if role else "not_found"
