"""The one place where it is decided who may do what.

The edge, the sync-token mint and every forwarded call ask `authorize`; nothing else compares an owner or a scope.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.control.domain.principal import StandingPrincipal
from services.control.domain.scopes import Scope


@dataclass(frozen=True, slots=True)
class Public:
    """Open to everybody, without a token."""


@dataclass(frozen=True, slots=True)
class AnyPrincipal:
    """Open to every signed-in principal: it concerns only the caller's own account."""


@dataclass(frozen=True, slots=True)
class Scoped:
    """Open to principals that have the scope."""

    scope: Scope


Access = Public | AnyPrincipal | Scoped


@dataclass(frozen=True, slots=True)
class UserOwned:
    """A thing of one person."""

    user_id: str


@dataclass(frozen=True, slots=True)
class OrgOwned:
    """A thing of an org, for all of its members whose role grants the scope."""

    org_id: str


Resource = UserOwned | OrgOwned


@dataclass(frozen=True, slots=True)
class Deny:
    """No, with the catalogue's reason and a sentence for people."""

    reason: str
    message: str


def authorize(principal: StandingPrincipal | None, access: Access, resource: Resource | None = None) -> Deny | None:
    """None when `principal` may do what needs `access` on `resource`; otherwise why not.

    In this order: a principal at all, the token's scope, the role's scope, the owner.
    """
    if isinstance(access, Public):
        return None
    if principal is None:
        return Deny("missing_authorization", "Sign in, and send the access token as `Authorization: Bearer …`.")
    if isinstance(access, Scoped) and (denied := _scope_denied(principal, access.scope)):
        return denied
    return _owner_denied(principal, resource) if resource else None


def _scope_denied(principal: StandingPrincipal, scope: Scope) -> Deny | None:
    if scope not in principal.scopes:
        return Deny("missing_scope", f"The token does not carry the scope {scope.value}.")
    if scope not in principal.standing:
        return Deny("org_scope_denied", f"The role in the org does not grant the scope {scope.value}; ask an admin.")
    return None


def _owner_denied(principal: StandingPrincipal, resource: Resource) -> Deny | None:
    # The org that counts is the token's: being a member of another one gives nothing here.
    match resource:
        case UserOwned(user_id):
            owned = principal.subject == user_id
        case OrgOwned(org_id):
            owned = principal.org_id == org_id
    return None if owned else Deny("owner_mismatch", "This belongs to somebody else.")
