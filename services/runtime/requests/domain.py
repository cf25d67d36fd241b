"""The requests of a run, and the answers that fit them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def requests_of(events: Iterable[RunEvent]) -> dict[str, Request]:
    """Id -> request, in the order of opening, from a run's events. If an id was opened twice, the first one counts."""
    found: dict[str, Request] = {}
    for event in events:
        match event.body:
            case RequestOpened() as opened:
                found.setdefault(opened.request_id, Request(opened, event.recorded_ns))
            case RequestAnswered() | RequestExpired() as settled if settled.request_id in found:
                found[settled.request_id].settled = settled
    return found


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
