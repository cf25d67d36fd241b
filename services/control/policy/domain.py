"""Who may do what: the scopes, the scopes of each role, and the one place where access is decided.

The edge, the sync-token mint and every forwarded call ask `authorize`; nothing else compares an owner or a scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal


class Scope(StrEnum):
    """Everything that a method or a topic may require: the registry of the contract (`openagents.common.v1.Scope`).
    Control doesn't start when the two differ."""

    RUNS_READ = "runs.read"
    RUNS_WRITE = "runs.write"
    WORKERS_READ = "workers.read"
    WORKERS_ATTACH = "workers.attach"
    NOTIFICATIONS_READ = "notifications.read"
    SERVICE_ACCOUNTS_READ = "service_accounts.read"
    SERVICE_ACCOUNTS_WRITE = "service_accounts.write"
    MEMBERS_READ = "members.read"
    MEMBERS_WRITE = "members.write"
    ORGS_WRITE = "orgs.write"
    ORGS_OWN = "orgs.own"
    AUDIT_READ = "audit.read"


class Role(StrEnum):
    """A member's role in an org, from the most scopes to the fewest."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


Scopes = frozenset[Scope]
_SESSION_PREFIX = "ses_"

_VIEWER: Scopes = frozenset({Scope.RUNS_READ, Scope.WORKERS_READ, Scope.NOTIFICATIONS_READ, Scope.MEMBERS_READ})
_MEMBER: Scopes = _VIEWER | {Scope.RUNS_WRITE, Scope.SERVICE_ACCOUNTS_READ}
_ADMIN: Scopes = _MEMBER | {Scope.SERVICE_ACCOUNTS_WRITE, Scope.AUDIT_READ, Scope.MEMBERS_WRITE, Scope.ORGS_WRITE}
_OWNER: Scopes = _ADMIN | {Scope.ORGS_OWN}

ROLE_SCOPES: Mapping[Role, Scopes] = {
    Role.OWNER: _OWNER,
    Role.ADMIN: _ADMIN,
    Role.MEMBER: _MEMBER,
    Role.VIEWER: _VIEWER,
}
"""Role -> scopes. No role gives `workers.attach`: only a worker token, made from an API key, carries it."""

PERSON_SCOPES: Scopes = frozenset().union(*ROLE_SCOPES.values())
"""The scopes that a person's token carries: those of all roles. The role in the org decides at every call, so a new
role takes effect at once, without a new token."""

SERVICE_ACCOUNT_SCOPES: Scopes = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.WORKERS_READ})
"""The scopes of a script with an API key: the org's runs, but neither people's notifications nor more keys."""

WORKER_SCOPES: Scopes = frozenset({Scope.WORKERS_ATTACH})
"""The scopes that a worker token carries: it allows taking runs, and nothing else."""


def role_scopes(role: Role | None) -> Scopes:
    """The scopes that the role gives; none without a role."""
    return ROLE_SCOPES[role] if role else frozenset()


def known_scopes(names: frozenset[str]) -> Scopes:
    """The scopes among `names`. Names that the registry doesn't have are ignored: they grant nothing."""
    return frozenset(scope for scope in Scope if scope.value in names)


@dataclass(frozen=True, slots=True)
class StandingPrincipal(Principal):
    """A principal, and what it may do right now.

    `scopes` is what its token carries, and `standing` is what its role (or its kind of account) gives it in `org_id`
    now. An action needs both: a token outlives a change of role, and some tokens may not use all that a role gives.
    """

    scopes: Scopes = frozenset()
    standing: Scopes = frozenset()
    # A later sign-in doesn't make another principal, so it can use the tokens for upstream calls made before it.
    signed_in_at: datetime | None = field(default=None, compare=False)
    """When the session's person last signed in; None for a caller without a session."""
    stood_at: datetime | None = field(default=None, compare=False)
    """A time from before `standing` was read: what is revoked later is not in it. None if it was never read."""

    @property
    def effective_scopes(self) -> Scopes:
        """What the principal may do: the scopes of its token that its standing still gives it."""
        return self.scopes & self.standing

    @property
    def has_session(self) -> bool:
        """Whether the principal is a person who has signed in, not a program with an API key."""
        return self.kind is PrincipalKind.USER and self.session_id.startswith(_SESSION_PREFIX)


@dataclass(frozen=True, slots=True)
class Standing:
    """The present standing of a principal, whatever its token says."""

    scopes: Scopes
    """The scopes that its role, or its kind of account, gives it."""
    signed_in_at: datetime | None = None
    """See `StandingPrincipal`."""


@dataclass(frozen=True, slots=True)
class Public:
    """Open to everybody, without a token."""


@dataclass(frozen=True, slots=True)
class AnyPrincipal:
    """Open to every signed-in principal, because it concerns only the caller's own account."""


@dataclass(frozen=True, slots=True)
class Scoped:
    """Open to principals that have the scope. With `fresh`, a person with a session must have signed in recently."""

    scope: Scope
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class SessionOnly:
    """Open to people who have signed in, but not to programs with an API key, because it changes how somebody signs in.
    `fresh` is as in `Scoped`."""

    fresh: bool = False


Access = Public | AnyPrincipal | Scoped | SessionOnly


@dataclass(frozen=True, slots=True)
class UserOwned:
    """A resource of one person."""

    user_id: str


@dataclass(frozen=True, slots=True)
class OrgOwned:
    """A resource of an org, for all of its members whose role grants the scope."""

    org_id: str


Resource = UserOwned | OrgOwned


class Rule(StrEnum):
    """The rules that can deny, in the order in which they are applied."""

    STANDING = "standing"
    TOKEN_SCOPE = "token_scope"
    ROLE_SCOPE = "role_scope"
    SESSION = "session"
    OWNER = "owner"
    FRESH_SIGN_IN = "fresh_sign_in"


@dataclass(frozen=True, slots=True)
class Deny:
    """A denial: the catalogue's reason, a sentence for people, and the rule that denied."""

    reason: str
    message: str
    rule: Rule
    metadata: Mapping[str, str] = field(default_factory=dict)


class Denied(Refusal):
    """A denial decided behind the gate, because only the use case knows which org is concerned. The door that received
    the call has it recorded, as the gate records its own denials, in the log of that org."""

    def __init__(self, reason: str, message: str, org_id: str) -> None:
        super().__init__(reason, message)
        self.org_id = org_id


def authorize(principal: StandingPrincipal | None, access: Access, resource: Resource | None = None) -> Deny | None:
    """Return None when `principal` may do what needs `access` on `resource`; otherwise the denial.

    Checks, in this order: that there is a principal, the token's scope, the role's scope, the owner. `sign_in_denied`
    checks the age of the sign-in.
    """
    if isinstance(access, Public):
        return None
    if principal is None:
        message = "this call needs an access token; sign in, and send it as `Authorization: Bearer …`"
        return Deny("missing_authorization", message, Rule.STANDING)
    if isinstance(access, Scoped) and (denied := _scope_denied(principal, access.scope)):
        return denied
    if isinstance(access, SessionOnly) and not principal.has_session:
        message = "no API key may do this; sign in, and call with the token of that session"
        return Deny("missing_scope", message, Rule.SESSION)
    return _owner_denied(principal, resource) if resource else None


def require(principal: StandingPrincipal, access: Access, resource: Resource | None = None) -> None:
    """Raise Denied unless `authorize` lets the principal. It is recorded in the org that the principal acts in."""
    if denied := authorize(principal, access, resource):
        raise Denied(denied.reason, denied.message, principal.org_id)


def sign_in_denied(
    principal: StandingPrincipal, access: Access, now: datetime, max_age: timedelta | None
) -> Deny | None:
    """Return None when `principal` has signed in as recently as `access` requires; otherwise the denial. This rule is
    the last one, so that nobody is asked to sign in for an action that is then denied. `max_age` is None where no
    sign-in is too old."""
    fresh = isinstance(access, Scoped | SessionOnly) and access.fresh
    if not fresh or max_age is None or not principal.has_session:
        return None
    if principal.signed_in_at and now - principal.signed_in_at <= max_age:
        return None
    seconds = int(max_age.total_seconds())
    message = f"this needs a sign-in of the last {seconds} s; sign in again, and repeat it"
    return Deny("sign_in_too_old", message, Rule.FRESH_SIGN_IN, {"max_age_s": str(seconds)})


def _scope_denied(principal: StandingPrincipal, scope: Scope) -> Deny | None:
    if scope not in principal.scopes:
        message = f"the token does not carry the scope {scope.value}; use one that does"
        return Deny("missing_scope", message, Rule.TOKEN_SCOPE)
    if scope not in principal.standing:
        who = "an admin" if scope in role_scopes(Role.ADMIN) else "an owner"
        message = f"the role in the org does not grant the scope {scope.value}; ask {who} of the org"
        return Deny("org_scope_denied", message, Rule.ROLE_SCOPE)
    return None


def _owner_denied(principal: StandingPrincipal, resource: Resource) -> Deny | None:
    # Only the token's org counts: membership in another org gives no access here.
    match resource:
        case UserOwned(user_id):
            owned = principal.subject == user_id
        case OrgOwned(org_id):
            owned = principal.org_id == org_id
    message = "this belongs to somebody else; sign in as its owner"
    return None if owned else Deny("owner_mismatch", message, Rule.OWNER)
