"""Calls of a worker about a run that it holds, outside its stream: read the log, expire requests, start children."""

from __future__ import annotations

from collections.abc import Sequence

from oa_base.identity import Principal
from oa_runlog.authority.checks import not_found, stale_epoch
from oa_runlog.events import EventType, RunSpec
from services.runtime.children.app import Children
from services.runtime.log.app.ports import RunEvents
from services.runtime.log.domain.records import RunRecord
from services.runtime.requests.app import Requests
from services.runtime.workers.app.lease_holders import LeaseHolders
from services.runtime.workers.domain.notices import HeldLease
from services.runtime.workers.limits import WorkerLimits


class HeldRuns:
    """The runs that workers hold, for their holders."""

    def __init__(
        self,
        logs: RunEvents,
        holders: LeaseHolders,
        requests: Requests,
        children: Children,
        limits: WorkerLimits,
    ) -> None:
        self._logs = logs
        self._children = children
        self._requests = requests
        self._holders = holders
        self._limits = limits

    async def page(
        self, principal: Principal, lease: HeldLease, after_seq: int, types: Sequence[str] = ()
    ) -> list[bytes]:
        """The next events after `after_seq`, as stored, of these types or of all types; none at the end.

        Raises Refusal `not_found` for a run of another org or of another account's worker, and `stale_epoch` for a
        lease that is over.
        """
        run = await self._held(principal, lease)
        # Before the worker reads which children earlier attempts have started.
        asks_for_children = after_seq == 0 and (not types or EventType.CHILD_STARTED in types)
        if asks_for_children and run.state.attempt > 1 and await self._children.complete(run):
            run = await self._held(principal, lease)
        if after_seq >= run.state.latest_seq:
            return []
        limits = self._limits
        page = limits.read_page_events, limits.read_page_bytes
        return await self._logs.events_of_types(lease.run_id, after_seq, types, *page)

    async def newest(self, principal: Principal, lease: HeldLease, after_seq: int, types: Sequence[str]) -> list[bytes]:
        """The newest of these events, as stored; empty if there is none. Raises Refusal as `page` does."""
        run = await self._held(principal, lease)
        if after_seq >= run.state.latest_seq:
            return []
        data = await self._logs.newest_of_types(lease.run_id, after_seq, types)
        return [] if data is None else [data]

    async def expire_request(self, principal: Principal, lease: HeldLease, request_id: str) -> int:
        """Expire a request of the run; return the seq of the event that settles it. Raises Refusal as `page` does."""
        run = await self._held(principal, lease)
        return (await self._requests.expire(run.state.org_id, lease.run_id, request_id)).first_seq

    async def start_child(
        self,
        principal: Principal,
        lease: HeldLease,
        child_id: str,
        spec: RunSpec,
        *,
        cancel_with_parent: bool,
        has_branches: bool,
    ) -> tuple[str, bool]:
        """Start a child; return its id, and whether it existed. Raises Refusal as `page` and `Children` do."""
        run = await self._held(principal, lease)
        return await self._children.start(
            run, child_id, spec, cancel_with_parent=cancel_with_parent, has_branches=has_branches
        )

    async def _held(self, principal: Principal, lease: HeldLease) -> RunRecord:
        run = await self._logs.run(lease.run_id)
        if run is None or run.state.org_id != principal.org_id:
            raise not_found()
        if not run.state.is_leased or run.state.lease_epoch != lease.lease_epoch:
            raise stale_epoch(run.state, lease.lease_epoch)
        if (await self._holders.of(lease.run_id, lease.lease_epoch)).account_id != principal.subject:
            raise not_found()
        return run
