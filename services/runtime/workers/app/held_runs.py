"""What a worker may read: the log of a run that it holds, up to where it took it over and beyond."""

from __future__ import annotations

from collections.abc import Sequence

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog.decide import not_found
from services.runtime.log.domain.records import RunRecord
from services.runtime.requests.app import Requests, RunLogs
from services.runtime.workers.app.ports import WorkerStore
from services.runtime.workers.domain.notices import HeldLease
from services.runtime.workers.limits import WorkerLimits


class HeldRuns:
    """Reads the logs of runs for their holders, and says when the time of their requests is over."""

    def __init__(self, logs: RunLogs, store: WorkerStore, requests: Requests, limits: WorkerLimits) -> None:
        self._logs = logs
        self._requests = requests
        self._store = store
        self._limits = limits

    async def page(
        self, principal: Principal, lease: HeldLease, after_seq: int, types: Sequence[str] = ()
    ) -> list[bytes]:
        """The next events after `after_seq`, as they are stored, of these types or of all; none at the end.

        Raises Refusal `not_found` for a run of another org or of another account's worker, and `stale_epoch` for a
        lease that is over.
        """
        run = await self._held(principal, lease)
        if after_seq >= run.state.latest_seq:
            return []
        limits = self._limits
        most = limits.read_page_events, limits.read_page_bytes
        return await self._logs.events_of_types(lease.run_id, after_seq, types, *most)

    async def expire_request(self, principal: Principal, lease: HeldLease, request_id: str) -> int:
        """The time of a request of the run is over; the seq of what settles it. Raises Refusal as `page` does."""
        run = await self._held(principal, lease)
        return (await self._requests.expire(run.state.org_id, lease.run_id, request_id)).first_seq

    async def _held(self, principal: Principal, lease: HeldLease) -> RunRecord:
        run_id, lease_epoch = lease.run_id, lease.lease_epoch
        run = await self._logs.run(run_id)
        if run is None or run.state.org_id != principal.org_id:
            raise not_found(run_id)
        if not run.state.is_leased or run.state.lease_epoch != lease_epoch:
            text = f"lease {lease_epoch} of this run is over; stop working on it"
            current = {"current_epoch": str(run.state.lease_epoch)}
            raise Refusal("stale_epoch", text, field="lease_epoch", metadata=current)
        _, account_id = await self._store.lease_holder(run_id, lease_epoch) or ("", "")
        if account_id != principal.subject:
            raise not_found(run_id)
        return run
