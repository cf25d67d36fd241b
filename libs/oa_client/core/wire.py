"""The contracts' messages -> `models`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oa_base.refusal import Refusal
from oa_client.core.models import (
    AskedRequest,
    Caller,
    Finish,
    JsonDocument,
    NewServiceAccount,
    Progress,
    Run,
    RunAt,
    ServiceAccount,
    Session,
    SyncGrant,
)
from oa_runlog.events import DEFAULT_RETENTION_CLASS, RunEvent
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.wire import decode_event, receipt_from_wire, receipt_to_wire
from oa_wire.strict.json import merge_document, merge_json
from openagents.common.v1 import errors_pb2
from openagents.control.v1 import service_account_service_pb2, session_service_pb2, sync_token_service_pb2
from openagents.projection.v1 import run_summary_pb2
from openagents.runtime.v1 import event_pb2, receipt_pb2, run_pb2, run_service_pb2
from openagents.sync.v1 import frame_pb2

_STATUS_PREFIX = "RUN_STATUS_"
RUN_STATUSES = tuple(name.removeprefix(_STATUS_PREFIX).lower() for name in run_pb2.RunStatus.keys()[1:])
"""All statuses of a run."""


def document(message: Message) -> JsonDocument:
    """The strict proto3 JSON mapping of a message."""
    result: JsonDocument = MessageToDict(message)
    return result


def event_document(payload: bytes) -> JsonDocument:
    """A stored event in the strict proto3 JSON mapping."""
    return document(event_pb2.RunEvent.FromString(payload))


def is_event_document(value: Any, payload: bytes) -> bool:
    """Whether `value`, as `read_json` read it, is this stored event in proto3 JSON.

    Writers of proto3 JSON may differ (a 64-bit number as text or not, an enum by its number), so `value` is parsed, and
    the parsed event is compared.
    """
    stored = _canonical(event_document(payload))
    if _canonical(value) == stored:
        return True
    message = event_pb2.RunEvent()
    try:
        merge_document(value, message)
    except Refusal:
        return False
    return _canonical(document(message)) == stored


def _canonical(value: Any) -> str:
    # Compared as text, because to Python True equals 1 and 1 equals 1.0.
    return json.dumps(value, sort_keys=True)


def receipt_document(receipt: SignedReceipt) -> JsonDocument:
    """A receipt in the strict proto3 JSON mapping, as `oa receipt show --json` writes it."""
    return document(receipt_to_wire(receipt))


def receipt_of(text: bytes) -> SignedReceipt:
    """Return the receipt in a file of `receipt_document`. Raises Refusal `artifact_malformed`."""
    message = receipt_pb2.Receipt()
    try:
        merge_json(text, message)
        return receipt_from_wire(message)
    except Refusal as refusal:
        where = f" (look at {refusal.field})" if refusal.field else ""
        what = f"this is no receipt as `oa receipt show --json` writes it{where}"
        raise Refusal("artifact_malformed", what) from None


def finish(message: event_pb2.RunFinished) -> Finish:
    """Return how a run ended."""
    measured = message.exec
    return Finish(
        outcome=_word(event_pb2.RunOutcome.Name(message.outcome), "RUN_OUTCOME_"),
        reason=message.reason,
        message=message.message,
        exit_code=measured.exit_code if measured.HasField("exit_code") else None,
        signal=measured.signal,
        duration_ms=measured.duration_ms,
        stdout_bytes=measured.stdout_bytes,
        stderr_bytes=measured.stderr_bytes,
        result_json=message.result_json,
    )


def run(message: run_pb2.Run) -> Run:
    """Return the run in the authority's answer."""
    return Run(
        run_id=message.run_id,
        title=message.spec.title,
        adapter=message.spec.adapter,
        status=_status(message.status),
        latest_seq=message.latest_seq,
        worker_id=message.worker_id,
        attempt=message.attempt,
        created_at=_time(message.create_time),
        finish=finish(message.finish) if message.HasField("finish") else None,
        document=document(message),
        chain_head=message.chain_head,
        events_topic=message.events_topic,
        retention_class=message.spec.retention_class or DEFAULT_RETENTION_CLASS,
        not_before=_time(message.not_before_time) if message.HasField("not_before_time") else "",
        deadline=_time(message.deadline_time) if message.HasField("deadline_time") else "",
        parent_run_id=message.parent_run_id,
    )


def run_at(payload: bytes) -> RunAt:
    """Return the run in the payload of a snapshot of its events."""
    message = run_pb2.RunSnapshot.FromString(payload)
    return RunAt(
        run=run(message.run),
        totals={field.name: getattr(message.totals, field.name) for field in message.totals.DESCRIPTOR.fields},
        messages=_events(message.messages),
        output=_events(message.output),
        open_requests=_events(message.open_requests),
        progress=_progress(message.progress) if message.HasField("progress") else None,
        steps=message.steps,
        archived_sha256=message.archived.sha256,
        archived_bytes=message.archived.size_bytes,
        document=document(message),
    )


def _events(messages: Iterable[event_pb2.RunEvent]) -> tuple[RunEvent, ...]:
    return tuple(decode_event(message.SerializeToString()) for message in messages)


def summary(message: run_summary_pb2.RunSummary) -> Run:
    """The read model's view of a run."""
    return Run(
        run_id=message.run_id,
        title=message.title,
        adapter=message.adapter,
        status=_status(message.status),
        latest_seq=message.latest_seq,
        worker_id=message.worker_id,
        attempt=message.attempt,
        created_at=_time(message.create_time),
        finish=finish(message.finish) if message.HasField("finish") else None,
        document=document(message),
        text_bytes=message.text_bytes,
        progress=_progress(message.progress) if message.HasField("progress") else None,
    )


def _progress(message: event_pb2.ProgressReported) -> Progress:
    done = message.done if message.HasField("done") else None
    return Progress(message.text, done, message.total if message.HasField("total") else None)


def documents(payload: bytes, *, snapshot: bool) -> tuple[bytes, ...]:
    """Return the documents in an applied element of a summary topic: one in an event, all in a snapshot."""
    return tuple(frame_pb2.DocumentSet.FromString(payload).documents) if snapshot else (payload,)


def sync_grant(message: sync_token_service_pb2.MintSyncTokenResponse, now_ms: int) -> SyncGrant:
    """Return a sync token and its grants. `now_ms`: since 1970, by the clock that `message` comes from."""
    return SyncGrant(
        token=message.token,
        topics=frozenset(grant.topic for grant in message.grants if grant.granted),
        expires_in_ms=max(0, message.expire_time.ToMilliseconds() - now_ms),
        refused=tuple((grant.topic, _reason(grant.reason)) for grant in message.grants if not grant.granted),
        khala_url=message.khala_url,
    )


def caller(message: session_service_pb2.GetCallerResponse) -> Caller:
    """Return who the caller is."""
    principal = message.principal
    return Caller(principal.subject, principal.org_id, message.email, tuple(principal.scopes), message.khala_url)


def session(message: session_service_pb2.Session) -> Session:
    """A session."""
    return Session(
        session_id=message.session_id,
        device_id=message.device_id,
        created_at=_time(message.create_time),
        refreshed_at=_time(message.refresh_time),
        revoked_at=_time(message.revoke_time),
        revoke_reason=message.revoke_reason,
        current=message.current,
        document=document(message),
    )


def service_account(message: service_account_service_pb2.ServiceAccount) -> ServiceAccount:
    """A service account."""
    made, revoked = _time(message.create_time), _time(message.revoke_time)
    return ServiceAccount(message.service_account_id, message.name, made, revoked, document(message))


def asked_request(message: run_service_pb2.Request) -> AskedRequest:
    """A request of a run, with its state and answer."""
    opened, state = message.opened, message.WhichOneof("settled") or "open"
    options = {option.id: option.label or option.id for option in opened.options}
    if opened.kind == event_pb2.REQUEST_KIND_APPROVAL:
        options = {"yes": "yes", "no": "no"}
    answered = message.answered
    return AskedRequest(
        request_id=opened.request_id,
        kind=event_pb2.RequestKind.Name(opened.kind).removeprefix("REQUEST_KIND_").lower(),
        title=opened.title,
        detail=opened.detail,
        options=options,
        opened_at=_time(message.open_time),
        deadline_at=_time(opened.deadline_time) if opened.HasField("deadline_time") else "",
        state=state,
        answer=message.expired.option if state == "expired" else answered.option or answered.text,
        answered_by=answered.answered_by,
        document=document(message),
    )


def new_service_account(message: service_account_service_pb2.CreateServiceAccountResponse) -> NewServiceAccount:
    """A service account with its key."""
    account = message.service_account
    return NewServiceAccount(
        account.service_account_id, account.name, message.api_key_id, message.api_key, document(message)
    )


def status_number(status: str) -> run_pb2.RunStatus.ValueType:
    """The contract's number of a status. Raises Refusal `invalid_enum` for a word that is not in RUN_STATUSES."""
    try:
        return run_pb2.RunStatus.Value(_STATUS_PREFIX + status.upper())
    except ValueError:
        known = ", ".join(RUN_STATUSES)
        raise Refusal(
            "invalid_enum", f"{status!r} is no status of a run; give one of {known}", field="status"
        ) from None


def _status(number: run_pb2.RunStatus.ValueType) -> str:
    return (
        _word(run_pb2.RunStatus.Name(number), _STATUS_PREFIX) if number in run_pb2.RunStatus.values() else str(number)
    )


def _reason(number: errors_pb2.Reason.ValueType) -> str:
    known = number in errors_pb2.Reason.values() and number != errors_pb2.REASON_UNSPECIFIED
    return _word(errors_pb2.Reason.Name(number), "REASON_") if known else "forbidden_topic"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _time(moment: Timestamp) -> str:
    return moment.ToJsonString() if moment.seconds or moment.nanos else ""
