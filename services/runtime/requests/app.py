"""Shows the requests of runs, and takes the answers. A run of another org is treated as one that does not exist."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.authority.checks import not_found
from oa_runlog.authority.commands import SettleRequest
from oa_runlog.events import EventType, RequestAnswered, RequestExpired, RequestOpened, RunEvent
from oa_runlog.state.reducer import invalid_transition
from services.runtime.log.app.log import Log
from services.runtime.log.app.ports import RunEvents
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord
from services.runtime.requests.domain import Found, Request, check_answer
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
        found = Found(self._limits.max_requests)
        async for event in self._events(run_id, _TYPES):
            found.take(event)
        return found.requests

    async def answer(self, principal: Principal, run_id: str, request_id: str, option: str, text: str) -> Applied:
        """Settle a request. Raises Refusal not_found, invalid_value, request_settled, invalid_transition."""
        answered = RequestAnswered(request_id, option, text, principal.subject)
        run = await self._run(principal, run_id)
        # A request that is settled stays so after the run: the same answer, sent again, gets what it got.
        opened = await self._opened(run_id, request_id)
        if opened is None:
            raise invalid_transition(run.state.status, answered) if run.state.status.is_final else _no_such_request()
        check_answer(opened, option, text)
        return await self._log.do(SettleRequest.of(run_id, principal.org_id, answered))

    async def expire(self, org_id: str, run_id: str, request_id: str) -> Applied:
        """Settle a request with its default, unless it is settled. Raises Refusal not_found, invalid_transition."""
        opened = await self._opened(run_id, request_id)
        if opened is None:
            raise _no_such_request()
        expired = RequestExpired(request_id, opened.default_option)
        return await self._log.do(SettleRequest.of(run_id, org_id, expired))

    async def _run(self, principal: Principal, run_id: str) -> RunRecord:
        run = await self._logs.run(run_id)
        if run is None or run.state.org_id != principal.org_id:
            raise not_found()
        return run

    async def _opened(self, run_id: str, request_id: str) -> RequestOpened | None:
        """How a request was opened, the first time."""
        async with aclosing(self._events(run_id, (EventType.REQUEST_OPENED,))) as events:
            async for event in events:
                if isinstance(event.body, RequestOpened) and event.body.request_id == request_id:
                    return event.body
        return None

    async def _events(self, run_id: str, types: Sequence[EventType]) -> AsyncGenerator[RunEvent, None]:
        """All events of these types, a page at a time."""
        after_seq = 0
        while page := await self._logs.events_of_types(
            run_id, after_seq, types, self._limits.max_requests, self._limits.page_bytes
        ):
            for data in page:
                event = wire.decode_event(data)
                after_seq = event.seq
                yield event


def _no_such_request() -> Refusal:
    return Refusal("not_found", "the run has no such request; list its requests", field="request_id")
