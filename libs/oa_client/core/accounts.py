"""The end of accounts as commands return it, and the mapping from the contracts' messages."""

from __future__ import annotations

from dataclasses import dataclass

from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from openagents.control.v1 import account_service_pb2


@dataclass(frozen=True)
class AccountOrg:
    """An org of a person whose account is deleted. `personal`: it is the person's own."""

    org_id: str
    name: str
    personal: bool


@dataclass(frozen=True)
class AccountDeletion:
    """What the deletion of an account ends, or has ended: orgs that are deleted with it, orgs that the person leaves,
    and orgs that prevent it. `deleted_at` is RFC 3339, and empty if the account is not deleted."""

    user_id: str
    email: str
    ending: tuple[AccountOrg, ...]
    left: tuple[AccountOrg, ...]
    blocking: tuple[AccountOrg, ...]
    live_sessions: int
    live_keys: int
    deleted_at: str
    document: JsonDocument


def account_deletion(message: account_service_pb2.AccountDeletion) -> AccountDeletion:
    """What a deletion ends."""
    ending, left, blocking = (
        tuple(AccountOrg(org.org_id, org.name, org.personal) for org in orgs)
        for orgs in (message.ending_orgs, message.left_orgs, message.blocking_orgs)
    )
    return AccountDeletion(
        message.user_id,
        message.email,
        ending,
        left,
        blocking,
        message.live_sessions,
        message.live_keys,
        message.delete_time.ToJsonString() if message.HasField("delete_time") else "",
        document(message),
    )
