"""What a sync token may carry, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from oa_base.refusal import Refusal
from oa_khala.grants import AllOf, parse_grant
from oa_khala.topics import ORG_RUNS, ORG_WORKERS, RUN_EVENTS, USER_NOTIFICATIONS, USER_RUNS, Topic
from services.control.policy.domain import (
    OrgOwned,
    Resource,
    Role,
    Scope,
    Scoped,
    Scopes,
    StandingPrincipal,
    UserOwned,
    authorize,
    role_scopes,
)

DEFAULT_TTL_S = 300
MIN_TTL_S = 60
MAX_TTL_S = 900
MAX_AUDITED_TOPICS = 8
"""Maximum number of topics that the audit row of a mint names."""


class Surface(StrEnum):
    """Where a token is used: the registry of the contract (`openagents.common.v1.Surface`). Control doesn't start when
    the two differ."""

    UNSTATED = ""
    CLI = "cli"
    SDK = "sdk"
    WEB = "web"
    DESKTOP = "desktop"
    MOBILE = "mobile"
    WORKER = "worker"
    THIRD_PARTY = "third_party"


WIDE_SURFACES = frozenset({Surface.CLI, Surface.SDK, Surface.WEB, Surface.DESKTOP, Surface.MOBILE})
"""The surfaces whose tokens may open all topics of an owner. Tokens of other surfaces open only the topics that they
name; those of a third party name only events of runs."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The decision about a topic, which is kept as it was requested; `reason` is None when it was granted."""

    topic: str
    reason: str | None = None


def surface_of(text: str) -> Surface:
    """The surface with that text. Raises Refusal `invalid_value` for one that isn't in the registry."""
    try:
        return Surface(text)
    except ValueError:
        known = ", ".join(surface for surface in Surface if surface)
        message = f"a token is used in one of these: {known}; leave it out for a token that opens what it names"
        raise Refusal("invalid_value", message, field="surface") from None


def token_ttl(ttl_seconds: int) -> timedelta:
    """The requested lifetime; 0 is the default. Raises Refusal `invalid_value` outside the bounds: never clamped."""
    seconds = ttl_seconds or DEFAULT_TTL_S
    if not MIN_TTL_S <= seconds <= MAX_TTL_S:
        message = f"a sync token lives {MIN_TTL_S} to {MAX_TTL_S} seconds; 0 gives {DEFAULT_TTL_S}"
        raise Refusal("invalid_value", message, field="ttl_seconds")
    return timedelta(seconds=seconds)


def token_expiry(ttl: timedelta, now: datetime, session_expires_at: datetime | None) -> datetime:
    """When a token made now expires: after `ttl`, and never after the session behind it."""
    asked = now + ttl
    return min(asked, session_expires_at) if session_expires_at else asked


def asks_runtime(topic: Topic) -> bool:
    """Whether only runtime can say who owns the subject of the topic."""
    return topic.topic_class is RUN_EVENTS


def decide(principal: StandingPrincipal, grant: Topic | AllOf, surface: Surface, run_org_id: str | None) -> str | None:
    """None when a token of `principal` for `surface` may carry `grant`, otherwise the catalogue's reason.

    `run_org_id` is the org that runtime says owns the run; None when there is no such run for this caller.
    """
    owner = _owner(principal, grant, run_org_id)
    if owner is None:
        return "forbidden_topic"
    if denied := authorize(principal, Scoped(Scope(grant.required_scope)), owner):
        return denied.reason
    return None if _is_for(surface, grant) else "surface_policy_denied"


def _is_for(surface: Surface, grant: Topic | AllOf) -> bool:
    if isinstance(grant, AllOf):
        return surface in WIDE_SURFACES
    return surface is not Surface.THIRD_PARTY or grant.topic_class is RUN_EVENTS


def _owner(principal: StandingPrincipal, grant: Topic | AllOf, run_org_id: str | None) -> Resource | None:
    if isinstance(grant, AllOf):
        return OrgOwned(grant.owner_id) if grant.of_org else UserOwned(grant.owner_id)
    kind = grant.topic_class
    if kind in (USER_RUNS, USER_NOTIFICATIONS):
        return UserOwned(grant.subject_id)
    if kind in (ORG_RUNS, ORG_WORKERS):
        return OrgOwned(grant.subject_id)
    if kind is RUN_EVENTS:
        return OrgOwned(run_org_id) if run_org_id else None
    # Runtime checks who owns the worker when the topic is subscribed: nobody is served a topic that isn't their org's.
    return OrgOwned(principal.org_id)


def granted_topics(grants: Sequence[Grant]) -> tuple[str, ...]:
    """Return the topics for the token. Raises Refusal with the reason of the first topic when none was granted."""
    granted = tuple(grant.topic for grant in grants if grant.reason is None)
    if granted:
        return granted
    first = grants[0]
    message = f"no topic was granted, and the first was refused for {first.reason}; ask for topics that you may read"
    raise Refusal(str(first.reason), message, field="topics")


def still_granted(grants: Sequence[Grant], scopes: Scopes) -> tuple[Grant, ...]:
    """Return the grants, refusing those that need more than `scopes`, which are the caller's by now."""
    return tuple(
        replace(grant, reason="org_scope_denied")
        if grant.reason is None and parse_grant(grant.topic).required_scope not in scopes
        else grant
        for grant in grants
    )


def sufficient_roles(grants: Sequence[Grant]) -> tuple[Role, ...]:
    """The roles that suffice for everything that was granted."""
    needed = {parse_grant(grant.topic).required_scope for grant in grants if grant.reason is None}
    return tuple(role for role in Role if needed <= role_scopes(role))


def summary(grants: Sequence[Grant]) -> str:
    """Text about a mint for the audit log, in one row however much was requested: how many topics were granted, and the
    first of them; how many were refused, and why. It names no refused topic, because that is the caller's own text."""
    granted = [grant.topic for grant in grants if grant.reason is None]
    refused = Counter(grant.reason for grant in grants if grant.reason)
    parts = [f"{len(granted)} granted", *granted[:MAX_AUDITED_TOPICS], f"{refused.total()} refused"]
    return ", ".join(parts + [f"{count} {reason}" for reason, count in sorted(refused.items())])


def needed_scopes(grants: Sequence[Topic | AllOf]) -> tuple[str, ...]:
    """The scopes that `grants` need, sorted: the token carries them and no others."""
    return tuple(sorted({grant.required_scope for grant in grants}))
