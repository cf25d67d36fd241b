"""When keys were used: noted in memory at each call, and stored once a minute, so that no call waits for a write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.control.api_keys.limits import MAX_NOTED_KEYS, USES_WRITTEN_EVERY_S
from services.control.housekeeping.app import keep_writing
from services.control.transactions.app import Transactions


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest use of a key. `prefix` is empty if the call did not show the key itself."""

    used_at: datetime
    prefix: str = ""


class UseStore(Protocol):
    """The store for uses."""

    async def used(self, uses: Mapping[str, Seen]) -> None:
        """Store the newest use of each key, by key id."""
        ...


class Using(Protocol):
    """A transaction in which uses can be stored."""

    @property
    def api_keys(self) -> UseStore: ...


class KeyUses:
    """The uses that a replica has seen since its last write. A process that is killed loses the uses of one minute."""

    def __init__(self, transactions: Transactions[Using]) -> None:
        self._transactions = transactions
        self._seen: dict[str, Seen] = {}

    def note(self, api_key_id: str, now: datetime, prefix: str = "") -> None:
        """Note that a key was used. Beyond MAX_NOTED_KEYS in a minute, further keys are not noted."""
        before = self._seen.get(api_key_id)
        if before is None and len(self._seen) >= MAX_NOTED_KEYS:
            return
        self._seen[api_key_id] = Seen(now, prefix or (before.prefix if before else ""))

    async def write_down(self) -> None:
        """Store the noted uses. Raises Refusal `unavailable`, and keeps the uses then."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with self._transactions.autocommit() as tx:
                await tx.api_keys.used(seen)
        except BaseException:  # a drain cancels it
            later, self._seen = self._seen, seen
            for api_key_id, one in later.items():
                self.note(api_key_id, one.used_at, one.prefix)
            raise

    async def keep_writing(self, interval_s: float = USES_WRITTEN_EVERY_S) -> None:
        """Store the uses each minute, and once more when canceled."""
        await keep_writing(self.write_down, interval_s, still_waits="uses_of_keys_wait")
