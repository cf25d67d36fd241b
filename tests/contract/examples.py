"""One example of everything that travels on the sync plane. The golden vectors are made of these, once per release.

`python -m tests.contract.examples` writes the vectors that don't exist yet. One that exists is never rewritten: it is
what some client out there has stored.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from openagents.codex.v1 import event_pb2 as codex
from openagents.common.v1 import cursor_pb2, errors_pb2
from openagents.runtime.v1 import event_pb2 as runtime
from openagents.sync.v1 import client_frame_pb2 as client
from openagents.sync.v1 import frame_pb2 as frame

VECTORS = Path(__file__).parent / "vectors"
RUN = "run_01K0000000000000000000000A"
WORKER = "wrk_01K0000000000000000000000B"
TOPIC = f"run:{RUN}:events"
NOON = Timestamp(seconds=1_795_608_000, nanos=123_456_000)


def _struct(**members: str | float | bool) -> Struct:
    struct = Struct()
    struct.update(members)
    return struct


def _event(seq: int, lease_epoch: int = 1, **body: Message) -> runtime.RunEvent:
    return runtime.RunEvent(
        run_id=RUN,
        seq=seq,
        recorded_time=NOON,
        lease_epoch=lease_epoch,
        schema_version=1,
        body=runtime.EventBody(**body),  # type: ignore[arg-type]
    )


def _events() -> Mapping[str, Message]:
    spec = runtime.RunSpec(
        adapter="exec",
        title="git log",
        exec=runtime.ExecSpec(argv=["git", "log", "--stat"], environment={"LC_ALL": "C"}, timeout_ms=60_000),
        labels={"team": "search"},
    )
    created = runtime.RunCreated(
        user_id="usr_01K0000000000000000000000C", org_id="org_01K0000000000000000000000D", spec=spec
    )
    finished = runtime.RunFinished(
        outcome=runtime.RUN_OUTCOME_FAILED,
        reason="nonzero_exit",
        message="git ended with status 128",
        exec=runtime.ExecResult(exit_code=128, duration_ms=12, stdout_bytes=0, stderr_bytes=44),
    )
    delta = runtime.TextDelta(stream=runtime.TEXT_STREAM_STDOUT, data=b"not utf-8: \xff\xfe\n")
    result = runtime.ToolResult(call_id="c1", result=Value(number_value=4.0))
    turn = codex.TurnStatusChanged(turn_id="t1", status=codex.TURN_STATUS_COMPLETED)
    return {
        "event_run_created": _event(1, 0, run_created=created),
        "event_run_created_with_retention_class": _event(
            1,
            0,
            run_created=runtime.RunCreated(
                user_id=created.user_id,
                org_id=created.org_id,
                spec=runtime.RunSpec(
                    adapter="codex", title="t", prompt=runtime.PromptSpec(text="t"), retention_class="short"
                ),
            ),
        ),
        "event_run_started": _event(2, 0, run_started=runtime.RunStarted(worker_id=WORKER, lease_epoch=1, attempt=1)),
        "event_text_delta": _event(3, text_delta=delta),
        "event_tool_call": _event(
            4, tool_call=runtime.ToolCall(call_id="c1", name="add", arguments=_struct(a=1, b="two", c=True))
        ),
        "event_tool_result": _event(5, tool_result=result),
        "event_message": _event(6, message=runtime.Message(role=runtime.MESSAGE_ROLE_ASSISTANT, text="Grüße, 世界 🌍")),
        "event_verification": _event(7, verification=runtime.Verification(name="tests", passed=True, detail="12")),
        "event_usage": _event(8, usage=runtime.Usage(model="m", input_tokens=2**53, output_tokens=7)),
        "event_codex": _event(9, codex_event=codex.CodexEvent(codex_thread_id="th", turn=turn)),
        "event_custom": _event(10, custom=runtime.Custom(type="acme.progress", data=_struct(percent=12.5))),
        "event_executor_lost": _event(
            11, 0, executor_lost=runtime.ExecutorLost(worker_id=WORKER, lease_epoch=1, attempt=1, requeued=True)
        ),
        "event_run_cancel_requested": _event(
            12, 0, run_cancel_requested=runtime.RunCancelRequested(requested_by="usr_x", reason="enough")
        ),
        "event_run_finished": _event(13, 2, run_finished=finished),
        **_events_of_agents(),
    }


def _events_of_agents() -> Mapping[str, Message]:
    created = runtime.RunCreated(
        user_id="usr_01K0000000000000000000000C",
        org_id="org_01K0000000000000000000000D",
        spec=runtime.RunSpec(
            adapter="support", title="support", agent=runtime.AgentSpec(input_json='{"question":"Grüße?"}')
        ),
    )
    step = runtime.StepCompleted(
        ordinal=3, name="quote", fingerprint=bytes(range(32)), result_json='{"price":"12.50","of":"Gerät"}'
    )
    saved = runtime.CheckpointSaved(number=7, state_json='{"done":["a","ß"],"next":1.50}')
    progress = runtime.ProgressReported(text="3 von 10 Größen", done=3, total=10)
    said = runtime.InputReceived(sent_by="usr_x", input_json='{"say":"Grüße"}')
    opened = runtime.RequestOpened(
        request_id="r1",
        kind=runtime.REQUEST_KIND_CHOICE,
        title="Which one?",
        detail="Grüße",
        options=[runtime.RequestOption(id="a", label="The first"), runtime.RequestOption(id="b")],
        default_option="b",
        deadline_time=Timestamp(seconds=1_800_000_000, nanos=5_000),
    )
    answered = runtime.RequestAnswered(request_id="r1", option="a", answered_by="usr_x")
    expired = runtime.RequestExpired(request_id="r2", option="no")
    finished = runtime.RunFinished(outcome=runtime.RUN_OUTCOME_SUCCEEDED, result_json='{"text":"Grüße, 世界 🌍"}')
    queue = runtime.QueuePolicy(
        priority=-7,
        not_before_time=NOON,
        start_timeout_ms=60_000,
        run_timeout_ms=3_600_000,
        concurrency=runtime.Concurrency(key="gpu", limit=2),
        retry=runtime.RetryPolicy(max_failures=3, initial_delay_ms=500, max_delay_ms=9_000, reasons=["agent_error"]),
    )
    queued = runtime.RunCreated(
        user_id=created.user_id,
        org_id=created.org_id,
        spec=runtime.RunSpec(
            adapter="support", title="support", agent=runtime.AgentSpec(input_json="null"), queue=queue
        ),
    )
    failure = runtime.RunFinished(outcome=runtime.RUN_OUTCOME_FAILED, reason="agent_error", message="ValueError: Grüße")
    tried_again = runtime.AttemptFailed(
        worker_id=WORKER, lease_epoch=1, attempt=1, failure=failure, retry_time=Timestamp(seconds=1_795_608_001)
    )
    return {
        "event_run_created_with_queue_policy": _event(1, 0, run_created=queued),
        "event_child_started": _event(
            9, 0, child_started=runtime.ChildStarted(child_id="c1", run_id=RUN, adapter="quote")
        ),
        "event_child_started_with_its_input": _event(
            9,
            0,
            child_started=runtime.ChildStarted(
                child_id="c2", run_id=RUN, adapter="quote", input_sha256=hashlib.sha256(b'"tea"').digest()
            ),
        ),
        "event_child_finished": _event(9, 0, child_finished=runtime.ChildFinished(run_id=RUN, finish=failure)),
        "event_attempt_failed": _event(9, 0, attempt_failed=tried_again),
        "event_run_created_for_an_agent": _event(1, 0, run_created=created),
        "event_step_completed": _event(10, step_completed=step),
        "event_checkpoint_saved": _event(10, checkpoint_saved=saved),
        "event_progress_reported": _event(10, progress_reported=progress),
        "event_input_received": _event(11, 0, input_received=said),
        "event_request_opened": _event(11, request_opened=opened),
        "event_request_answered": _event(12, 0, request_answered=answered),
        "event_request_expired": _event(12, 0, request_expired=expired),
        "event_run_finished_with_result": _event(13, 2, run_finished=finished),
    }


def _frames() -> Mapping[str, Message]:
    payloads: Mapping[str, tuple[str, int, frame.FrameKind.ValueType, Message]] = {
        "frame_welcome": (
            "",
            0,
            frame.FRAME_KIND_WELCOME,
            frame.Welcome(connection_id="c-1", heartbeat_interval_ms=15_000, max_topics=128, server_time=NOON),
        ),
        "frame_subscribed": (
            TOPIC,
            0,
            frame.FRAME_KIND_SUBSCRIBED,
            frame.Subscribed(epoch="e1", head=12, plan=frame.DELIVERY_PLAN_REPLAY, from_seq=3),
        ),
        "frame_event": (TOPIC, 3, frame.FRAME_KIND_EVENT, _events()["event_text_delta"]),
        "frame_caught_up": (TOPIC, 0, frame.FRAME_KIND_CAUGHT_UP, frame.CaughtUp(seq=12)),
        "frame_heartbeat": (
            "",
            0,
            frame.FRAME_KIND_HEARTBEAT,
            frame.Heartbeat(heads=[frame.TopicHead(topic=TOPIC, head=2**63, epoch="e1")], server_time=NOON, nonce=7),
        ),
        "frame_error_stale_cursor": (
            TOPIC,
            0,
            frame.FRAME_KIND_ERROR,
            frame.Error(
                reason=errors_pb2.REASON_EPOCH_MISMATCH,
                reason_name="epoch_mismatch",
                message="The cursor counts in another lineage of the topic.",
                stale_cursor=frame.StaleCursor(epoch="e2", floor=0, head=12),
            ),
        ),
        "frame_error_other_content": (
            TOPIC,
            0,
            frame.FRAME_KIND_ERROR,
            frame.Error(
                reason=errors_pb2.REASON_EPOCH_MISMATCH,
                reason_name="epoch_mismatch",
                message="At seq 3 the topic has another chain than the cursor.",
                stale_cursor=frame.StaleCursor(epoch="e1", floor=0, head=12, chain=bytes(range(32))),
            ),
        ),
        "frame_subscribed_snapshot": (
            TOPIC,
            0,
            frame.FRAME_KIND_SUBSCRIBED,
            frame.Subscribed(
                epoch="e1",
                floor=0,
                head=12,
                plan=frame.DELIVERY_PLAN_SNAPSHOT,
                from_seq=11,
                chain=bytes(range(32)),
            ),
        ),
        "frame_draining": ("", 0, frame.FRAME_KIND_DRAINING, frame.Draining(reconnect_after_ms=730)),
    }
    return {
        name: frame.KhalaFrame(
            topic=topic, seq=seq, kind=kind, payload_bytes=payload.SerializeToString(), schema_version=1
        )
        for name, (topic, seq, kind, payload) in payloads.items()
    } | {name.replace("frame_", "payload_"): entry[3] for name, entry in payloads.items() if name != "frame_event"}


def _client_frames() -> Mapping[str, Message]:
    hello = client.Hello(
        token="a.b.c", device_id="dev_1", client_build_id="oa-cli/0.1.0", protocol_version=1, schema_version=1
    )
    subscribe = client.Subscribe(
        topics=[
            client.TopicSubscription(topic=TOPIC, cursor=cursor_pb2.Cursor(topic=TOPIC, epoch="e1", applied_seq=3)),
            client.TopicSubscription(topic="user:usr_01K0000000000000000000000C:runs"),
        ]
    )
    cursor = cursor_pb2.Cursor(topic=TOPIC, epoch="e1", applied_seq=3, chain=bytes(range(32)))
    bound = client.Subscribe(topics=[client.TopicSubscription(topic=TOPIC, cursor=cursor)])
    takes = client.TopicSubscription(topic=TOPIC, takes_snapshots=True)
    return {
        "client_hello": client.ClientFrame(hello=hello),
        "client_subscribe": client.ClientFrame(subscribe=subscribe),
        "client_subscribe_bound": client.ClientFrame(subscribe=bound),
        "client_subscribe_snapshots": client.ClientFrame(subscribe=client.Subscribe(topics=[takes])),
        "client_unsubscribe": client.ClientFrame(unsubscribe=client.Unsubscribe(topics=[TOPIC])),
        "client_refresh_token": client.ClientFrame(refresh_token=client.RefreshToken(token="a.b.c")),
        "client_ping": client.ClientFrame(ping=client.Ping(nonce=9)),
    }


def _snapshots() -> Mapping[str, Message]:
    part = frame.KhalaFrame(
        topic=TOPIC,
        seq=11,
        kind=frame.FRAME_KIND_SNAPSHOT,
        payload_bytes=b"the second part",
        schema_version=1,
        part=2,
        parts=3,
    )
    return {"frame_snapshot_part": part}


EXAMPLES: Mapping[str, Message] = {**_events(), **_frames(), **_client_frames(), **_snapshots()}


def write_missing() -> list[str]:
    """Write a `.binpb` and a `.json` for each example that has none; returns their names."""
    VECTORS.mkdir(exist_ok=True)
    written = []
    for name, message in EXAMPLES.items():
        if not (VECTORS / f"{name}.binpb").exists():
            (VECTORS / f"{name}.binpb").write_bytes(message.SerializeToString(deterministic=True))
            (VECTORS / f"{name}.json").write_text(json_format.MessageToJson(message, sort_keys=True) + "\n")
            written.append(name)
    return written


if __name__ == "__main__":
    for example in write_missing():
        sys.stdout.write(f"{example}\n")
