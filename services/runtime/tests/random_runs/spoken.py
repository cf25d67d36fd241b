"""Between the model's words and messages: wishes, appended events, stored events, notices."""

from __future__ import annotations

from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1 import worker_service_pb2
from services.runtime.tests.random_runs.records import Entry, Said, Wish

_OUTCOMES = {
    "succeeded": pb.RUN_OUTCOME_SUCCEEDED,
    "failed": pb.RUN_OUTCOME_FAILED,
    "canceled": pb.RUN_OUTCOME_CANCELED,
}
_WORDS = {outcome: word for word, outcome in _OUTCOMES.items()}
_POLICIES = {
    "": pb.THREAD_POLICY_UNSPECIFIED,
    "reject": pb.THREAD_POLICY_REJECT,
    "enqueue": pb.THREAD_POLICY_ENQUEUE,
    "interrupt": pb.THREAD_POLICY_INTERRUPT,
}


def spec_of(wish: Wish) -> pb.RunSpec:
    """A run with an input, so that it hears what is said to it."""
    spec = pb.RunSpec(adapter="exec", agent=pb.AgentSpec(input_json="1"), title=wish.title, thread_id=wish.thread)
    spec.thread_policy = _POLICIES[wish.thread_policy]
    if wish.max_failures > 1:
        spec.queue.retry.max_failures = wish.max_failures
    if wish.key:
        spec.queue.concurrency.CopyFrom(pb.Concurrency(key=wish.key, limit=1))
    return spec


def body_of(said: Said) -> pb.EventBody:
    """An event to be appended."""
    match said.kind:
        case "text_delta":
            return pb.EventBody(text_delta=pb.TextDelta(stream=pb.TEXT_STREAM_STDOUT, data=said.says.encode()))
        case "step_completed":
            step = pb.StepCompleted(ordinal=1, name=said.says, fingerprint=bytes(32), result_json="1")
            return pb.EventBody(step_completed=step)
        case "request_opened":
            asked = pb.RequestOpened(
                request_id=said.says, kind=pb.REQUEST_KIND_APPROVAL, title="?", default_option="no"
            )
            return pb.EventBody(request_opened=asked)
        case "run_finished":
            return pb.EventBody(run_finished=pb.RunFinished(outcome=_OUTCOMES[said.says]))
        case "input_received":
            return pb.EventBody(input_received=pb.InputReceived(sent_by="usr_x", input_json="1"))
        case "request_answered":
            return pb.EventBody(request_answered=pb.RequestAnswered(request_id="r1", option="yes", answered_by="usr_x"))
        case "run_started":
            return pb.EventBody(run_started=pb.RunStarted(worker_id="wrk_x", lease_epoch=9, attempt=9))
        case "child_finished":
            finish = pb.RunFinished(outcome=pb.RUN_OUTCOME_SUCCEEDED)
            return pb.EventBody(child_finished=pb.ChildFinished(run_id="run_x", finish=finish))
    raise AssertionError(said)


def entry_of(event: pb.RunEvent) -> Entry:
    """A stored event in the model's words."""
    kind = event.body.WhichOneof("kind")
    assert kind is not None
    return Entry(kind, event.lease_epoch, _says(event.body))


def _says(body: pb.EventBody) -> str:
    match body.WhichOneof("kind"):
        case "run_created":
            return body.run_created.spec.title
        case "run_started":
            assert body.run_started.attempt == body.run_started.lease_epoch
            return f"{body.run_started.worker_id}/{body.run_started.lease_epoch}"
        case "run_finished":
            return _WORDS[body.run_finished.outcome]
        case "text_delta":
            return body.text_delta.data.decode()
        case "step_completed":
            return body.step_completed.name
        case "input_received":
            return body.input_received.input_json
        case "request_opened":
            return body.request_opened.request_id
        case "request_answered":
            return f"{body.request_answered.request_id}/{body.request_answered.option}"
        case "request_expired":
            return f"{body.request_expired.request_id}/{body.request_expired.option}"
        case "child_started":
            return f"{body.child_started.child_id}/{body.child_started.run_id}"
        case "child_finished":
            return f"{body.child_finished.run_id}/{_WORDS[body.child_finished.finish.outcome]}"
    return ""


def notice_of(message: worker_service_pb2.AttachResponse) -> tuple[str, str, int]:
    """A notice in the model's words: kind, run, and lease epoch or seq."""
    match message.WhichOneof("message"):
        case "assignment":
            return "assignment", message.assignment.run.run_id, message.assignment.lease_epoch
        case "cancel":
            return "cancel", message.cancel.run_id, message.cancel.lease_epoch
        case "news":
            return "news", message.news.run_id, message.news.seq
        case "lease_lost":
            return "lease_lost", message.lease_lost.run_id, message.lease_lost.lease_epoch
    raise AssertionError(message)
