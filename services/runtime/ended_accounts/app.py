"""Ends what an account has here, once control has announced that the account has ended.

Every replica hears of it and does the same, any number of times, so a replica that dies midway leaves nothing undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from oa_platform.auth.revocations import Revocation
from oa_platform.health.failures import note_survived
from services.runtime.ended_accounts.limits import RETRY_S

_log = structlog.get_logger(__name__)
OnEnd = Callable[[str], Awaitable[None]]
"""Ends what an account has. May be called repeatedly; is called again if it raises Refusal."""


class EndedAccountStore(Protocol):
    """The accounts that have ended."""

    async def add(self, account_id: str) -> None:
        """Remember an account for good. Raises Refusal unavailable."""
        ...


class EndedAccounts:
    """The ended accounts that one replica has heard of."""

    def __init__(self, store: EndedAccountStore, on_end: Sequence[OnEnd], retry_s: float = RETRY_S) -> None:
        self._store = store
        self._on_end = on_end
        self._retry_s = retry_s
        self._to_end: asyncio.Queue[str] = asyncio.Queue()

    def on_revocation(self, revocation: Revocation) -> None:
        """Handle a revocation: of an account, or of something smaller."""
        if revocation.ended_subject:
            self._to_end.put_nowait(revocation.ended_subject)

    async def run(self) -> None:
        """Run until canceled."""
        while True:
            account_id = await self._to_end.get()
            try:
                await self._end(account_id)
            except Exception as error:  # noqa: BLE001 - one that breaks must not keep the others from ending
                note_survived(_log, "account_not_ended", error, account_id=account_id)
                self._to_end.put_nowait(account_id)
                await asyncio.sleep(self._retry_s)

    async def _end(self, account_id: str) -> None:
        await self._store.add(account_id)  # first, because this stops what the account begins from now on
        for end in self._on_end:
            await end(account_id)
