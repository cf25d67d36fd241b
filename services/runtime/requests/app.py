"""Shows the requests of runs, and takes the answers. A run of another org is treated as one that does not exist."""

from __future__ import annotations

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.commands import SettleRequest
from oa_runlog.decide import not_found
from oa_runlog.events import EventType, RequestAnswered, RequestExpired, RunEvent
from oa_runlog.reducer import invalid_transition
from services.runtime.log.app.log import Log
from services.runtime.log.app.ports import RunEvents
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.requests.domain import Request, check_answer, requests_of
from services.runtime.requests.limits import RequestLimits

_TYPES = (EventType.REQUEST_OPENED, EventType.REQUEST_ANSWERED, EventType.REQUEST_EXPIRED)


class Requests:
    """The requests of runs."""

    def __init__(self, log: Log, logs: RunEvents, limits: RequestLimits) -> None:
        self._log = log
        self._logs = logs
        self._limits = limits

    async def of(self, principal: Principal, run_id: str) -> list[Request]:
        """The requests of a run, in order. Raises Refusal not_found."""
        await self._run(principal, run_id)
        return list((await self._requests(run_id)).values())[: self._limits.max_requests]

    async def answer(self, principal: Principal, run_id: str, request_id: str, option: str, text: str) -> Applied:
        """Settle a request. Raises Refusal not_found, invalid_value, request_settled, invalid_transition."""
        answered = RequestAnswered(request_id, option, text, principal.subject)
        run = await self._run(principal, run_id)
        # A request that is settled stays so after the run: the same answer, sent again, gets what it got.
        request = (await self._requests(run_id)).get(request_id)
        if request is None:
            raise invalid_transition(run.state.status, answered) if run.state.status.is_final else _no_such_request()
        check_answer(request.opened, option, text)
        return await self._log.do(SettleRequest.of(run_id, principal.org_id, answered))

    async def expire(self, org_id: str, run_id: str, request_id: str) -> Applied:
        """Settle a request with its default, unless it is settled. Raises Refusal not_found, invalid_transition."""
        request = await self._request(run_id, request_id)
        expired = RequestExpired(request_id, request.opened.default_option)
        return await self._log.do(SettleRequest.of(run_id, org_id, expired))

    async def _run(self, principal: Principal, run_id: str) -> RunRecord:
        run = await self._logs.run(run_id)
        if run is None or run.state.org_id != principal.org_id:
            raise not_found()
        return run

    async def _request(self, run_id: str, request_id: str) -> Request:
        request = (await self._requests(run_id)).get(request_id)
        if request is None:
            raise _no_such_request()
        return request

    async def _requests(self, run_id: str) -> dict[str, Request]:
        limits, events = self._limits, list[RunEvent]()
        max_events = 2 * limits.max_requests
        after_seq = 0
        while len(events) < max_events:
            left = max_events - len(events)
            page = await self._logs.events_of_types(run_id, after_seq, _TYPES, left, limits.page_bytes)
            if not page:
                break
            events += [wire.decode_event(data) for data in page]
            after_seq = events[-1].seq
        return requests_of(events)


def _no_such_request() -> Refusal:
    return Refusal("not_found", "the run has no such request; list its requests", field="request_id")
