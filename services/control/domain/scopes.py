"""The closed registry of scopes, and what each role in an org may do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Scope(StrEnum):
    """Everything that a method or a topic may require. A scope that isn't here doesn't exist."""

    RUNS_READ = "runs.read"
    RUNS_WRITE = "runs.write"
    WORKERS_READ = "workers.read"
    WORKERS_ATTACH = "workers.attach"
    NOTIFICATIONS_READ = "notifications.read"
    SERVICE_ACCOUNTS_READ = "service_accounts.read"
    SERVICE_ACCOUNTS_WRITE = "service_accounts.write"


class Role(StrEnum):
    """What a member is in an org, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


Scopes = frozenset[Scope]

_VIEWER: Scopes = frozenset({Scope.RUNS_READ, Scope.WORKERS_READ, Scope.NOTIFICATIONS_READ})
_MEMBER: Scopes = _VIEWER | {Scope.RUNS_WRITE, Scope.SERVICE_ACCOUNTS_READ}
_ADMIN: Scopes = _MEMBER | {Scope.SERVICE_ACCOUNTS_WRITE}

ROLE_SCOPES: Mapping[Role, Scopes] = {
    Role.OWNER: _ADMIN,
    Role.ADMIN: _ADMIN,
    Role.MEMBER: _MEMBER,
    Role.VIEWER: _VIEWER,
}
"""Role -> scopes. `workers.attach` is nobody's: only a worker token, made from an API key, carries it."""

SERVICE_ACCOUNT_SCOPES: Scopes = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.WORKERS_READ})
"""What a script may do with an API key: the org's runs, but neither people's notifications nor more keys."""

WORKER_SCOPES: Scopes = frozenset({Scope.WORKERS_ATTACH})
"""What a worker token carries: taking runs and nothing else."""


def known_scopes(names: frozenset[str]) -> Scopes:
    """The scopes among `names`; what the registry doesn't know grants nothing."""
    return frozenset(scope for scope in Scope if scope.value in names)
