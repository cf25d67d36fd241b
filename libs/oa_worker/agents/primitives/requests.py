"""Questions that an agent asks people: each once for its run, no matter which process dies. The first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, timedelta

from oa_base.refusal import Refusal
from oa_wire.given import check_named_texts, check_texts
from oa_wire.rules import check_rules
from oa_worker.agents.primitives.ending import or_canceled
from oa_worker.agents.primitives.takeover.numbers import Numbers, numbers_of
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.agents.primitives.times import seconds_to_wait, time_in
from oa_worker.sdk.adapter import Assignment, Emit
from openagents.runtime.v1 import event_pb2 as pb

_TYPES = ("request.opened", "request.answered", "request.expired")
What = tuple[int, str, tuple[tuple[str, str], ...], str]
"""Distinguishes a request from others: its kind, its title, its options, each with the text that people see, and its
detail.
"""


@dataclass(frozen=True)
class Settled:
    """How a request ended. `answered_by` is empty if its time ran out."""

    option: str
    text: str
    answered_by: str


class Requests:
    """The requests of one run on this worker, numbered in the order of asking."""

    def __init__(self, assignment: Assignment, append: Emit, past: Past | None = None) -> None:
        """`past`: the past of the agent's function, which gives the order of earlier requests."""
        self._assignment = assignment
        self._past = past
        self._append = append
        self._asked = 0
        self._read_up_to = 0
        self._reading = asyncio.Lock()
        self._opened: dict[str, tuple[int, pb.RequestOpened]] = {}
        self._settled: dict[str, tuple[int, Settled]] = {}
        self._numbers: Numbers[What] | None = None

    def name(self) -> str:
        """Return the id for one more request."""
        return id_of(self._next())

    async def settle(self, request: pb.RequestOpened, within: timedelta | None) -> Settled:
        """Ask, unless that was done before a takeover, and wait until the request is settled.

        A request without an id gets the next one or, with branches that ask at the same time, the one of the same
        question.

        Raises Refusal `step_mismatch` for a question other than the one that the run asked at this place.
        """
        wanted = 0 if request.request_id else self._next()
        if self._assignment.attempt > 1:
            await self._read()
        if self._past is not None:
            await self._past.read()
        if wanted:
            request.request_id = self._found_or_new(wanted, request)
        seq, before = self._opened.get(request.request_id, (0, None))
        if before is None:
            before = request
            await self._open(request, within)
        _check_same(request, before)
        await self._turn_of(seq)
        return await self._until_settled(before)

    def _next(self) -> int:
        self._asked += 1
        if self._past is not None:
            self._past.note_asker()
        return self._asked

    def _found_or_new(self, wanted: int, request: pb.RequestOpened) -> str:
        """Return the id that the log has for the question, or else a new one."""
        if self._numbers is None:  # the log has nothing of this attempt yet
            self._numbers = known(one for _, one in self._opened.values())
        return id_of(self._numbers.found_or_free(wanted, what_of(request), has_branches=self._has_branches()))

    def _has_branches(self) -> bool:
        return self._past is not None and self._past.has_branches

    async def _open(self, request: pb.RequestOpened, within: timedelta | None) -> None:
        if self._past is not None:
            await self._past.over()
        if within is not None:
            request.deadline_time.FromDatetime(time_in(within, "deadline", self._assignment.now()))
        request.has_branches = self._has_branches()
        check_rules(request)
        await self._append(pb.EventBody(request_opened=request))
        await self._assignment.stored()

    async def _until_settled(self, request: pb.RequestOpened) -> Settled:
        name = request.request_id
        while True:
            told = self._assignment.news.count  # before the read, so that news during the read leads to another read
            await self._read()
            if name in self._settled:
                seq, settled = self._settled[name]
                await self._turn_of(seq)
                return settled
            if not await self._is_told_in_time(request, told):
                await or_canceled(self._assignment, self._assignment.expire(self._assignment.lease, name))

    async def _is_told_in_time(self, request: pb.RequestOpened, told: int) -> bool:
        """Wait for more news than `told`. False if the time of the request is over first."""
        while True:
            left_s = self._left_s(request)
            try:
                async with asyncio.timeout(left_s):
                    await self._assignment.news.after(told)
                    return True
            except TimeoutError:
                if self._left_s(request) == 0:
                    return False

    def _left_s(self, request: pb.RequestOpened) -> float | None:
        """How long to wait before the next look at the clock; None without a deadline."""
        if not request.HasField("deadline_time"):
            return None
        return seconds_to_wait(request.deadline_time.ToDatetime(UTC), self._assignment.now())

    async def _turn_of(self, seq: int) -> None:
        if self._past is not None and seq:
            await self._past.turn_of(seq)

    async def _read(self) -> None:
        async with self._reading:
            async for event in self._assignment.events(*_TYPES, after_seq=self._read_up_to):
                self._note(event.seq, event.body)
                self._read_up_to = event.seq

    def _note(self, seq: int, body: pb.EventBody) -> None:
        match body.WhichOneof("kind"):
            case "request_opened":
                self._opened[body.request_opened.request_id] = seq, body.request_opened
            case "request_answered":
                said = body.request_answered
                self._settled[said.request_id] = seq, Settled(said.option, said.text, said.answered_by)
            case "request_expired":
                expired = body.request_expired
                self._settled[expired.request_id] = seq, Settled(expired.option, "", "")


def options_of(options: Sequence[str] | Mapping[str, str]) -> list[pb.RequestOption]:
    """Return the options of a choice: ids, or ids with texts for people. Raises Refusal for none or duplicates."""
    if isinstance(options, Mapping):
        check_named_texts(options, "options")
    else:
        check_texts(options, "options")
        if isinstance(options, Set):  # its order differs in the next process
            raise Refusal("invalid_value", "options must have an order; give a list or tuple", field="options")
    labels = options if isinstance(options, Mapping) else dict.fromkeys(options, "")
    if not labels:
        raise Refusal("missing_field", "a choice has options; name them", field="options")
    if len(labels) != len(options):
        raise Refusal("invalid_value", "two options have the same id; give each its own", field="options")
    return [pb.RequestOption(id=name, label=label) for name, label in labels.items()]


def id_of(number: int) -> str:
    """The id of a request with this number."""
    return f"r{number}"


def known(opened: Iterable[pb.RequestOpened]) -> Numbers[What]:
    """Return the numbers of the requests in the log."""
    return numbers_of("r", {one.request_id: what_of(one) for one in opened})


def what_of(request: pb.RequestOpened) -> What:
    """Return what distinguishes a request from others."""
    options = tuple((option.id, option.label) for option in request.options)
    return request.kind, request.title, options, request.detail


def is_same(asked: pb.RequestOpened, before: pb.RequestOpened) -> bool:
    """Whether both are the same question. The detail may differ: at one place there is one question."""
    return what_of(asked)[:-1] == what_of(before)[:-1]


def _check_same(asked: pb.RequestOpened, before: pb.RequestOpened) -> None:
    if is_same(asked, before):
        return
    text = (
        f"request {asked.request_id} of this run was {before.title!r}, and {asked.title!r} is asked now; ask the same "
        "questions in the same order"
    )
    raise Refusal("step_mismatch", text, metadata={"recorded": before.title, "asked": asked.title})
