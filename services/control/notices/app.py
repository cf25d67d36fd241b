"""Notices wait for delivery like all mail: queued in the transaction of what they tell of."""

from __future__ import annotations

from datetime import datetime

from oa_platform.system.ids import new_id
from services.control.mail.app import Transaction
from services.control.mail.domain.letters import Kind, Mail
from services.control.notices.limits import NOTICE_TTL


async def tell_of_new_device(tx: Transaction, address: str, session_id: str, now: datetime) -> None:
    """A session began on a device that was new to its person's account."""
    await _tell(tx, Kind.NEW_DEVICE, address, session_id, now)


async def tell_of_key(tx: Transaction, address: str, api_key_id: str, now: datetime) -> None:
    """A personal access token was made."""
    await _tell(tx, Kind.KEY_CREATED, address, api_key_id, now)


async def tell_of_deletion(tx: Transaction, address: str, user_id: str, now: datetime) -> None:
    """The account of the address was deleted."""
    await _tell(tx, Kind.ACCOUNT_DELETED, address, user_id, now)


async def _tell(tx: Transaction, kind: Kind, address: str, about: str, now: datetime) -> None:
    await tx.mail.add(Mail(new_id("mal"), kind, address, about, now + NOTICE_TTL), now)
