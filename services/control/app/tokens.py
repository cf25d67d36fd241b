"""The tokens that a session gives, made from its row alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oa_base.identity import PrincipalKind
from services.control.app.ports import World
from services.control.domain.claims import access_claims
from services.control.domain.principal import StandingPrincipal
from services.control.domain.scopes import ROLE_SCOPES, Role, Scopes
from services.control.domain.session import ACCESS_TTL, Session, access_token_id, refresh_token


@dataclass(frozen=True)
class SessionTokens:
    """What a client keeps of a session."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str


def role_scopes(role: Role | None) -> Scopes:
    """What the role gives; none for who is not a member."""
    return ROLE_SCOPES[role] if role else frozenset()


def session_principal(session: Session, role: Role | None) -> StandingPrincipal:
    """The person of a session."""
    scopes = role_scopes(role)
    return StandingPrincipal(
        PrincipalKind.USER,
        session.user_id,
        session.org_id,
        scopes,
        session.session_id,
        session.device_id,
        standing=scopes,
    )


def session_tokens(world: World, session: Session, role: Role | None) -> SessionTokens:
    """The tokens at the session's counter. Asked twice at one counter, they are the same twice, byte for byte: that
    is how concurrent refreshes, and a refresh whose answer was lost, all get one answer. (Once the access token has
    expired, a lost answer is given again with a new one; the refresh token stays the same.)"""
    jti = access_token_id(session.session_id, session.counter)
    claims = access_claims(session_principal(session, role), jti, session.refreshed_at)
    return SessionTokens(
        access_token=world.signer.sign(claims),
        access_expires_at=session.refreshed_at + ACCESS_TTL,
        refresh_token=refresh_token(world.hmac_key, session.session_id, session.counter),
    )
