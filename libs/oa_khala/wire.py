"""Frames <-> bytes: binary protobuf and strict proto3 JSON. It never opens what events hold: see `readable`.

Decoding is total: it returns a value, or raises Refusal with `malformed_message`, `missing_payload`, `missing_field`,
`invalid_value`, `invalid_enum` or `payload_mismatch` and the field. The input is never echoed: it may be a token.
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from oa_base.refusal import Refusal
from oa_khala import frames
from oa_khala.frames import Form
from oa_wire.rules import check_rules
from oa_wire.strict.json import merge_json
from openagents.common.v1 import cursor_pb2, errors_pb2
from openagents.sync.v1 import client_frame_pb2, frame_pb2

M = TypeVar("M", bound=Message)

_PLANS = {
    frames.Plan.LIVE: frame_pb2.DELIVERY_PLAN_LIVE,
    frames.Plan.REPLAY: frame_pb2.DELIVERY_PLAN_REPLAY,
    frames.Plan.SNAPSHOT: frame_pb2.DELIVERY_PLAN_SNAPSHOT,
}
_PLANS_BACK = {wire: plan for plan, wire in _PLANS.items()}
_REASON_PREFIX = "REASON_"

# ------------------------------------------------------------------------------------------------- bytes <-> messages


def _parse(data: bytes, form: Form, empty: M) -> M:
    try:
        if form is Form.PROTO:
            empty.ParseFromString(data)
        else:
            merge_json(data.decode(), empty)
    except (DecodeError, UnicodeDecodeError):
        name = empty.DESCRIPTOR.name
        raise Refusal("malformed_message", f"the message is not a {name}; see the protocol's proto files") from None
    return empty


def _write(message: Message, form: Form) -> bytes:
    if form is Form.PROTO:
        return message.SerializeToString(deterministic=True)
    return json_format.MessageToJson(message, indent=None).encode()


# ------------------------------------------------------------------------------------------------- client frames


def decode_client_frame(data: bytes, form: Form) -> frames.ClientFrame:
    """Decode what a client sent. Raises Refusal naming the field when it is not a valid ClientFrame."""
    message = _parse(data, form, client_frame_pb2.ClientFrame())
    kind = message.WhichOneof("body")
    if kind is None:
        text = "the frame holds none of the bodies that this protocol has; set one of them"
        raise Refusal("missing_payload", text, field="body")
    check_rules(message)
    return _CLIENT_DECODERS[kind](message)


def _subscribe(message: client_frame_pb2.ClientFrame) -> frames.Subscribe:
    topics: list[tuple[str, frames.Cursor | None]] = []
    takes: dict[str, bool] = {}
    for index, entry in enumerate(message.subscribe.topics):
        cursor = None
        if entry.HasField("cursor"):
            if entry.cursor.topic not in ("", entry.topic):
                field = f"subscribe.topics[{index}].cursor.topic"
                text = "the cursor belongs to another topic; name that of the entry, or none"
                raise Refusal("payload_mismatch", text, field=field)
            cursor = frames.Cursor(entry.cursor.epoch, entry.cursor.applied_seq, entry.cursor.chain)
        topics.append((entry.topic, cursor))
        takes.setdefault(entry.topic, entry.takes_snapshots)  # of a topic that is named twice, the first entry counts
    return frames.Subscribe(tuple(topics), tuple(topic for topic, taken in takes.items() if taken))


def _hello(message: client_frame_pb2.ClientFrame) -> frames.Hello:
    hello = message.hello
    return frames.Hello(
        hello.token, hello.device_id, hello.client_build_id, hello.protocol_version, hello.schema_version
    )


_CLIENT_DECODERS: dict[str, Callable[[client_frame_pb2.ClientFrame], frames.ClientFrame]] = {
    "hello": _hello,
    "subscribe": _subscribe,
    "unsubscribe": lambda message: frames.Unsubscribe(tuple(message.unsubscribe.topics)),
    "refresh_token": lambda message: frames.RefreshToken(message.refresh_token.token),
    "ping": lambda message: frames.Ping(message.ping.nonce),
}


def encode_client_frame(frame: frames.ClientFrame, form: Form) -> bytes:
    """Return the bytes that a client sends for `frame`."""
    message = client_frame_pb2.ClientFrame()
    match frame:
        case frames.Hello():
            message.hello.token = frame.token
            message.hello.device_id = frame.device_id
            message.hello.client_build_id = frame.client_build_id
            message.hello.protocol_version = frame.protocol_version
            message.hello.schema_version = frame.schema_version
        case frames.Subscribe():
            for topic, cursor in frame.topics:
                takes = topic in frame.takes_snapshots
                message.subscribe.topics.append(_topic_subscription(topic, cursor, takes))
        case frames.Unsubscribe():
            message.unsubscribe.topics.extend(frame.topics)
        case frames.RefreshToken():
            message.refresh_token.token = frame.token
        case frames.Ping():
            message.ping.nonce = frame.nonce
    return _write(message, form)


def _topic_subscription(
    topic: str, cursor: frames.Cursor | None, takes_snapshots: bool
) -> client_frame_pb2.TopicSubscription:
    entry = client_frame_pb2.TopicSubscription(topic=topic, takes_snapshots=takes_snapshots)
    if cursor is not None:
        entry.cursor.CopyFrom(
            cursor_pb2.Cursor(topic=topic, epoch=cursor.epoch, applied_seq=cursor.applied_seq, chain=cursor.chain)
        )
    return entry


# ------------------------------------------------------------------------------------------------- server frames


def encode_server_frame(frame: frames.ServerFrame, form: Form) -> bytes:
    """Return the bytes that a gateway sends for `frame`, in a form in which payloads are bytes. Raises TypeError for an
    UnknownFrame, which nobody sends."""
    return _write(_khala_frame(frame), form)


def event_frame(topic: str, seq: int, payload: bytes, schema_version: int = frames.SCHEMA_VERSION) -> bytes:
    """Return the serialized KhalaFrame of one event. Sources make it once, and gateways pass it on."""
    return encode_server_frame(frames.Event(topic, seq, payload, schema_version), Form.PROTO)


def proto_to_json(data: bytes) -> bytes:
    """Return the JSON form of a serialized KhalaFrame. Raises Refusal `malformed_message` when `data` is not one."""
    return _write(_parse(data, Form.PROTO, frame_pb2.KhalaFrame()), Form.JSON)


def _khala_frame(frame: frames.ServerFrame) -> frame_pb2.KhalaFrame:
    match frame:
        case frames.Event() | frames.Snapshot():
            kind = frame_pb2.FRAME_KIND_EVENT if isinstance(frame, frames.Event) else frame_pb2.FRAME_KIND_SNAPSHOT
            return frame_pb2.KhalaFrame(
                topic=frame.topic,
                seq=frame.seq,
                kind=kind,
                payload_bytes=frame.payload,
                schema_version=frame.schema_version,
                part=getattr(frame, "part", 0),
                parts=getattr(frame, "parts", 0),
            )
        case frames.UnknownFrame():
            raise TypeError("nobody sends a frame of unknown kind")
    kind, payload = _control_payload(frame)
    return frame_pb2.KhalaFrame(
        topic=getattr(frame, "topic", ""),
        kind=kind,
        payload_bytes=payload.SerializeToString(deterministic=True),
        schema_version=frames.SCHEMA_VERSION,
    )


_Control = frames.Welcome | frames.Subscribed | frames.CaughtUp | frames.Heartbeat | frames.ErrorFrame | frames.Draining


def _control_payload(frame: _Control) -> tuple[frame_pb2.FrameKind.ValueType, Message]:
    match frame:
        case frames.Welcome():
            return frame_pb2.FRAME_KIND_WELCOME, _welcome_message(frame)
        case frames.Subscribed():
            return frame_pb2.FRAME_KIND_SUBSCRIBED, frame_pb2.Subscribed(
                epoch=frame.epoch,
                floor=frame.floor,
                head=frame.head,
                plan=_PLANS[frame.plan],
                from_seq=frame.from_seq,
                chain=frame.chain,
            )
        case frames.CaughtUp():
            return frame_pb2.FRAME_KIND_CAUGHT_UP, frame_pb2.CaughtUp(seq=frame.seq)
        case frames.Heartbeat():
            heads = [
                frame_pb2.TopicHead(topic=head.topic, head=head.head, epoch=head.epoch, source_away=head.source_away)
                for head in frame.heads
            ]
            beat = frame_pb2.Heartbeat(heads=heads, nonce=frame.nonce)
            beat.server_time.FromMilliseconds(frame.server_time_ms)
            return frame_pb2.FRAME_KIND_HEARTBEAT, beat
        case frames.ErrorFrame():
            return frame_pb2.FRAME_KIND_ERROR, _error_message(frame)
        case frames.Draining():
            return frame_pb2.FRAME_KIND_DRAINING, frame_pb2.Draining(reconnect_after_ms=frame.reconnect_after_ms)


def _welcome_message(frame: frames.Welcome) -> frame_pb2.Welcome:
    message = frame_pb2.Welcome(
        connection_id=frame.connection_id,
        heartbeat_interval_ms=frame.heartbeat_interval_ms,
        idle_timeout_ms=frame.idle_timeout_ms,
        max_topics=frame.max_topics,
        max_frame_bytes=frame.max_frame_bytes,
    )
    message.server_time.FromMilliseconds(frame.server_time_ms)
    message.token_expire_time.FromMilliseconds(frame.token_expire_time_ms)
    return message


def _error_message(frame: frames.ErrorFrame) -> frame_pb2.Error:
    known = errors_pb2.Reason.DESCRIPTOR.values_by_name.get(_REASON_PREFIX + frame.reason.upper())
    message = frame_pb2.Error(
        reason=errors_pb2.Reason.ValueType(known.number if known else 0),
        reason_name=frame.reason,
        message=frame.message,
        field=frame.field,
        retry_after_ms=frame.retry_after_ms,
        subscription_stands=frame.subscription_stands,
    )
    if frame.stale is not None:
        state = frame.stale
        message.stale_cursor.epoch = state.epoch
        message.stale_cursor.floor = state.floor
        message.stale_cursor.head = state.head
        message.stale_cursor.snapshot_available = state.snapshot_available
        message.stale_cursor.chain = frame.chain
    return message


def decode_server_frame(data: bytes, form: Form) -> frames.ServerFrame:
    """Decode what a gateway sent. A kind that this version does not know becomes an UnknownFrame.

    Raises Refusal naming the field when it is not a valid KhalaFrame, and `unsupported_schema_version` when a
    control frame's payload is of a schema that this version does not know.
    """
    frame = _parse(data, form, frame_pb2.KhalaFrame())
    if frame.kind in (frame_pb2.FRAME_KIND_EVENT, frame_pb2.FRAME_KIND_SNAPSHOT):
        return _element(frame)
    decoder = _SERVER_DECODERS.get(frame.kind)
    if decoder is None:
        return frames.UnknownFrame(frame.kind)
    if frame.schema_version != frames.SCHEMA_VERSION:
        message = "the gateway speaks another schema than this client; update the older of the two"
        raise Refusal("unsupported_schema_version", message, field="schema_version")
    return decoder(frame)


def _element(frame: frame_pb2.KhalaFrame) -> frames.Event | frames.Snapshot:
    _need(bool(frame.topic), "topic")
    if frame.kind == frame_pb2.FRAME_KIND_SNAPSHOT:
        return frames.Snapshot(
            frame.topic, frame.seq, frame.payload_bytes, frame.schema_version, frame.part, frame.parts
        )
    _need(frame.seq > 0, "seq")
    return frames.Event(frame.topic, frame.seq, frame.payload_bytes, frame.schema_version)


def _need(present: bool, field: str) -> None:
    if not present:
        raise Refusal("missing_field", f"{field} must be set", field=field)


def _payload(frame: frame_pb2.KhalaFrame, empty: M) -> M:
    try:
        empty.ParseFromString(frame.payload_bytes)
    except DecodeError:
        name = empty.DESCRIPTOR.name
        raise Refusal("payload_mismatch", f"the payload must be a {name}", field="payload_bytes") from None
    return empty


def _decode_welcome(frame: frame_pb2.KhalaFrame) -> frames.Welcome:
    welcome = _payload(frame, frame_pb2.Welcome())
    _need(bool(welcome.connection_id), "connection_id")
    return frames.Welcome(
        welcome.connection_id,
        welcome.heartbeat_interval_ms,
        welcome.idle_timeout_ms,
        welcome.max_topics,
        welcome.max_frame_bytes,
        welcome.server_time.ToMilliseconds(),
        welcome.token_expire_time.ToMilliseconds(),
    )


def _decode_subscribed(frame: frame_pb2.KhalaFrame) -> frames.Subscribed:
    subscribed = _payload(frame, frame_pb2.Subscribed())
    _need(bool(frame.topic), "topic")
    _need(bool(subscribed.epoch), "epoch")
    plan = _PLANS_BACK.get(subscribed.plan)
    if plan is None:
        raise Refusal("invalid_enum", "the plan is not one that this version knows; update this client", field="plan")
    return frames.Subscribed(
        frame.topic, subscribed.epoch, subscribed.floor, subscribed.head, plan, subscribed.from_seq, subscribed.chain
    )


def _decode_caught_up(frame: frame_pb2.KhalaFrame) -> frames.CaughtUp:
    _need(bool(frame.topic), "topic")
    return frames.CaughtUp(frame.topic, _payload(frame, frame_pb2.CaughtUp()).seq)


def _decode_heartbeat(frame: frame_pb2.KhalaFrame) -> frames.Heartbeat:
    beat = _payload(frame, frame_pb2.Heartbeat())
    heads = tuple(frames.TopicHead(head.topic, head.head, head.epoch, head.source_away) for head in beat.heads)
    return frames.Heartbeat(heads, beat.server_time.ToMilliseconds(), beat.nonce)


def _decode_error(frame: frame_pb2.KhalaFrame) -> frames.ErrorFrame:
    error = _payload(frame, frame_pb2.Error())
    _need(bool(error.reason_name), "reason_name")
    stale = None
    if error.HasField("stale_cursor"):
        where = error.stale_cursor
        stale = frames.TopicState(where.epoch, where.floor, where.head, where.snapshot_available)
    return frames.ErrorFrame(
        frame.topic,
        error.reason_name,
        error.message,
        error.field,
        error.retry_after_ms,
        stale,
        error.stale_cursor.chain,
        error.subscription_stands,
    )


def _decode_draining(frame: frame_pb2.KhalaFrame) -> frames.Draining:
    return frames.Draining(_payload(frame, frame_pb2.Draining()).reconnect_after_ms)


_SERVER_DECODERS: dict[int, Callable[[frame_pb2.KhalaFrame], frames.ServerFrame]] = {
    frame_pb2.FRAME_KIND_WELCOME: _decode_welcome,
    frame_pb2.FRAME_KIND_SUBSCRIBED: _decode_subscribed,
    frame_pb2.FRAME_KIND_CAUGHT_UP: _decode_caught_up,
    frame_pb2.FRAME_KIND_HEARTBEAT: _decode_heartbeat,
    frame_pb2.FRAME_KIND_ERROR: _decode_error,
    frame_pb2.FRAME_KIND_DRAINING: _decode_draining,
}
