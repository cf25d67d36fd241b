"""The holders of leases. They are cached because they never change in one epoch of the log."""

from __future__ import annotations

from typing import NamedTuple

from services.runtime.workers.app.ports import WorkerStore

MAX_REMEMBERED = 10_000
"""Maximum number of leases that are remembered; the oldest is forgotten first."""


class Holder(NamedTuple):
    """A worker and its service account; both are empty for an unknown lease."""

    worker_id: str = ""
    account_id: str = ""


class LeaseHolders:
    """The holders of leases. The store knows the holder of each run's newest lease."""

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._known: dict[tuple[str, int], Holder] = {}

    def forget(self) -> None:
        """Forget all holders, because the log has another past."""
        self._known = {}  # an answer that is on its way goes to the old ones

    async def of(self, run_id: str, lease_epoch: int) -> Holder:
        """The worker that got the lease."""
        lease, known = (run_id, lease_epoch), self._known
        if lease not in known:
            found = await self._store.lease_holder(run_id, lease_epoch)
            if found is None:
                return Holder()
            while len(known) >= MAX_REMEMBERED:
                del known[next(iter(known))]
            known[lease] = Holder(*found)
        return known[lease]
