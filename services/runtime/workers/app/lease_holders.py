"""Who got which lease. That never changes in one epoch of the log, so it is remembered."""

from __future__ import annotations

from typing import NamedTuple

from services.runtime.workers.app.ports import WorkerStore

MAX_REMEMBERED = 10_000
"""How many leases are remembered; the oldest is forgotten first."""


class Holder(NamedTuple):
    """A worker and its service account; both empty for a lease that is not known."""

    worker_id: str = ""
    account_id: str = ""


class LeaseHolders:
    """The holders of leases, as the store has them for the newest lease of each run."""

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._known: dict[tuple[str, int], Holder] = {}

    def forget(self) -> None:
        """The log has another past."""
        self._known.clear()

    async def of(self, run_id: str, lease_epoch: int) -> Holder:
        """Who got the lease."""
        lease = run_id, lease_epoch
        if lease not in self._known:
            found = await self._store.lease_holder(run_id, lease_epoch)
            if found is None:
                return Holder()
            while len(self._known) >= MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[lease] = Holder(*found)
        return self._known[lease]
