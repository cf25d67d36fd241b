"""The requests of a run, and the answers that fit them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

from oa_base.refusal import Refusal
from oa_runlog.events import (
    RequestAnswered,
    RequestExpired,
    RequestKind,
    RequestOpened,
    RunEvent,
)


@dataclass(slots=True)
class Request:
    """A request, when it was opened, and what settled it, if anything."""

    opened: RequestOpened
    open_ns: int
    settled: RequestAnswered | RequestExpired | None = None


class Found:
    """The requests of a run, from its events in order: at most `max_requests`, and as many again while it reads.

    The open ones count first; of the others, those that were settled last. If an id was opened twice, the first one
    counts. Of more than `max_requests` that are open at a time, the later ones are left out.
    """

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._open: dict[str, tuple[int, Request]] = {}
        self._settled: dict[str, tuple[int, Request]] = {}

    def take(self, event: RunEvent) -> None:
        """Take note of the next event."""
        match event.body:
            case RequestOpened(request_id=name) as opened if name not in self._settled:
                if len(self._open) < self._max_requests:
                    self._open.setdefault(name, (event.seq, Request(opened, event.recorded_ns)))
            case RequestAnswered() | RequestExpired() as settled if settled.request_id in self._open:
                seq, request = self._open.pop(settled.request_id)
                request.settled = settled
                self._settled[settled.request_id] = seq, request
                if len(self._settled) > self._max_requests:
                    del self._settled[next(iter(self._settled))]

    @property
    def requests(self) -> list[Request]:
        """What was found, in the order of opening."""
        room = self._max_requests - len(self._open)
        newest = list(self._settled.values())[max(0, len(self._settled) - room) :]
        return [request for _, request in sorted([*self._open.values(), *newest], key=itemgetter(0))]


def check_answer(opened: RequestOpened, option: str, text: str) -> None:
    """Raise Refusal `invalid_value` for an answer that the request does not take. The refusal does not repeat it."""
    if opened.kind is RequestKind.TEXT:
        if option or not text:
            raise Refusal("invalid_value", "the request asks for a text; set it, and no option", field="text")
        return
    if text:
        raise Refusal("invalid_value", "the request asks for an option; leave the text out", field="text")
    if option not in opened.choices:
        choices = ", ".join(opened.choices)
        message = "the answer is none of the request's options; choose one of them"
        raise Refusal("invalid_value", message, field="option", metadata={"options": choices})
