"""The commands: everything that can change a run. `oa_runlog.authority.decide` decides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.events import (
    ChildFinished,
    ChildStarted,
    EventBody,
    EventType,
    InputReceived,
    RequestAnswered,
    RequestExpired,
    RunSpec,
    event_type,
    titled,
)
from oa_runlog.fingerprint import fingerprint


class EncodedBody(NamedTuple):
    """The body of an event, with its bytes."""

    type: EventType
    body: EventBody
    data: bytes

    @classmethod
    def of(cls, body: EventBody) -> EncodedBody:
        """`body` with its bytes."""
        return cls(event_type(body), body, wire.encode_body(body))

    @classmethod
    def received(cls, message: wire.BodyMessage) -> EncodedBody:
        """The body in a message that keeps its rules and has no unknown fields, with its bytes. Raises Refusal."""
        body, data = wire.received_body(message)
        return cls(event_type(body), body, data)


@dataclass(frozen=True, slots=True)
class CreateRun:
    """A person or a service account wants a run. `run_id` is the id that the run gets if the key is new.

    `spec` is the spec to record, with a title; `fingerprint` is that of the spec as it was sent. `fault` is the
    objection to the spec at present. It counts only for a new key: otherwise the answer to a repetition would depend on
    the workers of the moment.
    """

    run_id: str
    org_id: str
    user_id: str
    spec: RunSpec
    idempotency_key: str
    fingerprint: bytes
    fault: Refusal | None = None
    parent_run_id: str = ""
    cancel_with_parent: bool = False
    max_children: int | None = None
    """How many children the parent may have, this one included; None for any number."""

    @classmethod
    def of(
        cls,
        run_id: str,
        org_id: str,
        user_id: str,
        spec: RunSpec,
        idempotency_key: str,
        fault: Refusal | None = None,
    ) -> CreateRun:
        """The command for a spec as it was sent."""
        sent = fingerprint([wire.encode_spec(spec)])
        return cls(run_id, org_id, user_id, titled(spec), idempotency_key, sent, fault)

    def child_of(self, parent_run_id: str, *, cancel_with_parent: bool, max_children: int | None = None) -> CreateRun:
        """Return the same command for a run that another run starts."""
        return replace(
            self, parent_run_id=parent_run_id, cancel_with_parent=cancel_with_parent, max_children=max_children
        )


@dataclass(frozen=True, slots=True)
class Append:
    """A worker appends events: all of them or none.

    `worker_id` and `org_id` are the caller's, taken from its token and its stream.
    """

    run_id: str
    org_id: str
    worker_id: str
    lease_epoch: int
    idempotency_key: str
    events: tuple[EncodedBody, ...]
    fingerprint: bytes
    expected_seq: int | None = None

    @classmethod
    def of(
        cls,
        run_id: str,
        org_id: str,
        worker_id: str,
        lease_epoch: int,
        idempotency_key: str,
        bodies: Sequence[EventBody],
        expected_seq: int | None = None,
    ) -> Append:
        """The command with its bodies' bytes and fingerprint."""
        events = [EncodedBody.of(body) for body in bodies]
        return cls.made_of(run_id, org_id, worker_id, lease_epoch, idempotency_key, events, expected_seq)

    @classmethod
    def made_of(
        cls,
        run_id: str,
        org_id: str,
        worker_id: str,
        lease_epoch: int,
        idempotency_key: str,
        events: Sequence[EncodedBody],
        expected_seq: int | None = None,
    ) -> Append:
        """The command with its fingerprint."""
        mark = fingerprint(event.data for event in events)
        return cls(run_id, org_id, worker_id, lease_epoch, idempotency_key, tuple(events), mark, expected_seq)


@dataclass(frozen=True, slots=True)
class AssignRun:
    """A waiting run goes to a worker with a free slot."""

    run_id: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Somebody in the run's org wants the run to end."""

    run_id: str
    org_id: str
    requested_by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SendInput:
    """Somebody in the run's org sends the run an input."""

    run_id: str
    org_id: str
    idempotency_key: str
    event: EncodedBody
    fingerprint: bytes

    @classmethod
    def of(cls, run_id: str, org_id: str, sent_by: str, idempotency_key: str, input_json: str) -> SendInput:
        """The command for a JSON text. A person's keys can't collide with those of workers or of other people."""
        event = EncodedBody.of(InputReceived(sent_by, input_json))
        return cls(run_id, org_id, f"{sent_by}/{idempotency_key}", event, fingerprint([event.data]))


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """A request of the run is answered, or its time is over. Callers check first that it was opened; that can't change.

    All settlements of a request have the same key, so only the first of them is stored.
    """

    run_id: str
    org_id: str
    idempotency_key: str
    event: EncodedBody
    fingerprint: bytes

    @classmethod
    def of(cls, run_id: str, org_id: str, settled: RequestAnswered | RequestExpired) -> SettleRequest:
        """The command for the event that settles the request."""
        event = EncodedBody.of(settled)
        return cls(run_id, org_id, f"request/{settled.request_id}", event, fingerprint([event.data]))


@dataclass(frozen=True, slots=True)
class TellChild:
    """A child of the run was started, or has ended. Each is recorded once, whoever reports it."""

    run_id: str
    org_id: str
    idempotency_key: str
    event: EncodedBody
    fingerprint: bytes

    @classmethod
    def of(cls, run_id: str, org_id: str, told: ChildStarted | ChildFinished) -> TellChild:
        """The command for the parent `run_id`."""
        event = EncodedBody.of(told)
        if isinstance(told, ChildFinished):
            return cls(run_id, org_id, f"child/finished/{told.run_id}", event, fingerprint([event.data]))
        # As told by a replica that does not state these, and by any attempt that starts this child.
        bare = EncodedBody.of(replace(told, input_sha256=b"", has_branches=False))
        return cls(run_id, org_id, f"child/started/{told.run_id}", event, fingerprint([bare.data]))


@dataclass(frozen=True, slots=True)
class LoseLease:
    """The holder of a lease is lost, or has said goodbye."""

    run_id: str
    worker_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class CancelDeadline:
    """A cancel was requested so long ago that the authority ends the run by itself."""

    run_id: str


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A timeout of the run's policy may have passed: no worker has started the run, or it has not ended."""

    run_id: str


Command = (
    CreateRun
    | Append
    | AssignRun
    | RequestCancel
    | SendInput
    | SettleRequest
    | TellChild
    | LoseLease
    | CancelDeadline
    | TimeLimit
)
"""Any command."""
