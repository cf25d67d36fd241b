"""Identities as control's tokens state them, as plain values. The claims are in proto/openagents/control/v1."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

ISSUER = "openagents-control"
"""The issuer of all tokens."""
EDGE_AUDIENCE = "openagents-edge"
RUNTIME_AUDIENCE = "runtime"
KHALA_AUDIENCE = "khala"
API_KEY_PREFIX = "apk_"
"""Prefix of the session in a token that was made from an API key."""
SYNC_CLAIMS_VERSION = 1
"""Version of the claims of sync tokens that name each topic."""
SYNC_GRANTS_VERSION = 2
"""Version of the claims of sync tokens that grant topics by their form, one by one or all of an owner."""


class PrincipalKind(StrEnum):
    """Kind of a principal, as in openagents.common.v1.PrincipalKind."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity on whose behalf a call is made. It comes from a verified token, never from a request's body.

    `subject` is `usr_…` or `sva_…`; `scopes` is what the token carries; `session_id` and `device_id` are empty for
    service accounts and workers.
    """

    kind: PrincipalKind
    subject: str
    org_id: str
    scopes: frozenset[str] = frozenset()
    session_id: str = ""
    device_id: str = ""


class TokenKind(Enum):
    """The purpose of a token. A token of one kind is never accepted as another.

    `typ` is the header's (RFC 8725, 3.11); `max_age_s` bounds the time since `iat`, whatever `exp` says.
    """

    ACCESS = ("oa-access+jwt", 3600)
    PRINCIPAL = ("oa-principal+jwt", 60)
    WORKER = ("oa-worker+jwt", 24 * 3600)
    SYNC = ("oa-sync+jwt", 900)

    def __init__(self, typ: str, max_age_s: int) -> None:
        self.typ = typ
        self.max_age_s = max_age_s


REVOCATION_KEPT_S = max(kind.max_age_s for kind in TokenKind) + 3600
"""How long a revocation is kept. By then no token that it ends is accepted, even with clocks that differ."""


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """Whose a token is, and when it was issued, in seconds since 1970 and to the millisecond: what a revocation is
    compared with."""

    subject: str
    org_id: str
    session_id: str = ""
    issued_s: float = 0.0
