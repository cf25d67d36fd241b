"""Domain values as messages of the contract. Total and without decisions."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.catalogue import reason_info
from openagents.common.v1 import errors_pb2, principal_pb2
from openagents.control.v1 import auth_service_pb2, org_service_pb2, service_account_service_pb2, session_service_pb2
from openagents.control.v1 import sync_token_service_pb2 as sync_pb2
from services.control.app.tokens import SessionTokens
from services.control.domain.claims import kind_name
from services.control.domain.org import Membership, ServiceAccount
from services.control.domain.principal import StandingPrincipal
from services.control.domain.session import Session
from services.control.domain.sync_token import Grant


def timestamp(moment: datetime) -> Timestamp:
    """The moment, to the microsecond."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def token_expiry(moment: datetime) -> Timestamp:
    """When a token expires, in whole seconds as its `exp` has it."""
    return timestamp(moment.replace(microsecond=0))


def tokens_to_wire(tokens: SessionTokens) -> auth_service_pb2.SessionTokens:
    """Tokens of a session."""
    return auth_service_pb2.SessionTokens(
        access_token=tokens.access_token,
        access_expire_time=token_expiry(tokens.access_expires_at),
        refresh_token=tokens.refresh_token,
    )


def principal_to_wire(principal: StandingPrincipal) -> principal_pb2.Principal:
    """The caller, with the scopes that it may use now."""
    return principal_pb2.Principal(
        kind=principal_pb2.PrincipalKind.Value(kind_name(principal.kind)),
        subject=principal.subject,
        org_id=principal.org_id,
        scopes=sorted(principal.effective_scopes),
        session_id=principal.session_id,
        device_id=principal.device_id,
    )


def session_to_wire(session: Session, current_id: str) -> session_service_pb2.Session:
    """A session in a list."""
    return session_service_pb2.Session(
        session_id=session.session_id,
        device_id=session.device_id,
        create_time=timestamp(session.created_at),
        refresh_time=timestamp(session.refreshed_at),
        current=session.session_id == current_id,
        revoke_time=timestamp(session.revoked_at) if session.revoked_at else None,
        revoke_reason=session.revoke_reason.value if session.revoke_reason else "",
    )


def org_to_wire(membership: Membership) -> org_service_pb2.Org:
    """An org of the caller's."""
    return org_service_pb2.Org(
        org_id=membership.org_id,
        name=membership.name,
        personal=membership.personal,
        role=org_service_pb2.OrgRole.Value(f"ORG_ROLE_{membership.role.value.upper()}"),
    )


def service_account_to_wire(account: ServiceAccount) -> service_account_service_pb2.ServiceAccount:
    """A service account, without its key."""
    return service_account_service_pb2.ServiceAccount(
        service_account_id=account.service_account_id,
        org_id=account.org_id,
        name=account.name,
        create_time=timestamp(account.created_at),
        revoke_time=timestamp(account.revoked_at) if account.revoked_at else None,
    )


def grant_to_wire(grant: Grant) -> sync_pb2.TopicGrant:
    """What was decided of a topic."""
    number = reason_info(grant.reason).number if grant.reason else errors_pb2.REASON_UNSPECIFIED
    reason = errors_pb2.Reason.ValueType(number)
    return sync_pb2.TopicGrant(topic=grant.topic, granted=grant.reason is None, reason=reason)
