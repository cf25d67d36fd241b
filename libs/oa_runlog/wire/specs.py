"""The spec of a run <-> `RunSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.message import Message as ProtoMessage

from oa_base.refusal import Refusal
from oa_runlog import events
from oa_runlog.wire.fields import EnumMap, asked_json_text, json_text, parse, part
from oa_runlog.wire.queues import checked_queue, queue_to_wire
from oa_wire.rules import check_rules
from openagents.runtime.v1 import event_pb2

_THREADS = EnumMap(events.ThreadPolicy, event_pb2.ThreadPolicy, "THREAD_POLICY_")
_EMPTY: Mapping[str, str] = MappingProxyType({})


def spec_to_wire(spec: events.RunSpec) -> event_pb2.RunSpec:
    """The message for a spec."""
    message = event_pb2.RunSpec(
        adapter=spec.adapter,
        title=spec.title,
        thread_id=spec.thread_id,
        labels=dict(spec.labels),
        retention_class=spec.retention_class,
        queue=None if spec.queue == events.AT_ONCE else queue_to_wire(spec.queue),
    )
    if spec.thread_policy:
        message.thread_policy = _THREADS.to_wire(spec.thread_policy)
    match spec.input:
        case events.ExecSpec() as command:
            message.exec.argv.extend(command.argv)
            message.exec.working_directory = command.working_directory
            message.exec.environment.update(command.environment)
            message.exec.timeout_ms = command.timeout_ms
            message.exec.stdin = command.stdin
            if command.terminal is not None:
                size = command.terminal
                message.exec.terminal.CopyFrom(event_pb2.Terminal(columns=size.columns, rows=size.rows))
        case events.PromptSpec() as prompt:
            message.prompt.text = prompt.text
        case events.AgentSpec() as agent:
            message.agent.input_json = agent.input_json
    return message


def spec_from_wire(message: event_pb2.RunSpec, *, path: str = "") -> events.RunSpec:
    """The spec in a message. Raises Refusal; `path` is the prefix of its fields' paths, for example "spec."."""
    _check(message, path)
    return checked_spec(message, path)


def asked_spec_from_wire(message: event_pb2.RunSpec, *, path: str = "") -> events.RunSpec:
    """The spec that a caller asks for. Raises Refusal as `spec_from_wire` does, and for a command that nothing can
    start, or an input with half characters. These are not rules of the contract, because logs and schedules of earlier
    releases hold such specs.
    """
    spec = spec_from_wire(message, path=path)
    if isinstance(spec.input, events.ExecSpec):
        _check_can_start(spec.input, f"{path}exec.")
    elif isinstance(spec.input, events.AgentSpec):
        asked_json_text(spec.input.input_json, f"{path}agent.input_json")
    return spec


def _check_can_start(command: events.ExecSpec, path: str) -> None:
    if not command.argv[0]:
        raise Refusal("missing_field", "the command's program has no name; fill argv[0]", field=f"{path}argv[0]")
    if any(not name or "=" in name for name in command.environment):
        text = "the name of a variable is empty or holds '='; give it another name"
        raise Refusal("invalid_value", text, field=f"{path}environment")


def _check(message: ProtoMessage, path: str) -> None:
    try:
        check_rules(message)
    except Refusal as refusal:
        raise (refusal.under(path.rstrip(".")) if path else refusal) from None


def checked_spec(message: event_pb2.RunSpec, path: str) -> events.RunSpec:
    """The spec in a message that has passed `check_rules`. Raises Refusal; `path` as in `spec_from_wire`."""
    match message.WhichOneof("input"):
        case "exec":
            command = message.exec
            what: events.ExecSpec | events.PromptSpec | events.AgentSpec = events.ExecSpec(
                tuple(command.argv),
                command.working_directory,
                _frozen(command.environment),
                command.timeout_ms,
                command.stdin,
                _terminal(command),
            )
        case "prompt":
            what = events.PromptSpec(message.prompt.text)
        case "agent":
            what = events.AgentSpec(json_text(message.agent.input_json, f"{path}agent.input_json"))
        case _:
            text = "the spec says nothing to execute; set exec, prompt or agent"
            raise Refusal("missing_payload", text, field=f"{path}input")
    labels = _frozen(message.labels)
    queue = part(message, "queue", checked_queue) if message.HasField("queue") else events.AT_ONCE
    return events.RunSpec(
        message.adapter,
        what,
        message.title,
        message.thread_id,
        labels,
        message.retention_class,
        queue,
        _thread_policy(message, path),
    )


def _terminal(command: event_pb2.ExecSpec) -> events.Terminal | None:
    if not command.HasField("terminal"):
        return None
    return events.Terminal(command.terminal.columns, command.terminal.rows)


def _thread_policy(message: event_pb2.RunSpec, path: str) -> events.ThreadPolicy | None:
    if not message.thread_policy:
        return None
    if not message.thread_id:
        text = "a policy is that of a thread; set its id, or leave the policy out"
        raise Refusal("missing_field", text, field=f"{path}thread_id")
    policy: events.ThreadPolicy = _THREADS.from_wire(message.thread_policy, f"{path}thread_policy")
    return policy


def _frozen(entries: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(entries)) if entries else _EMPTY


def encode_spec(spec: events.RunSpec) -> bytes:
    """The bytes of a spec, for fingerprints and for storing it."""
    return spec_to_wire(spec).SerializeToString(deterministic=True)


def decode_spec(data: bytes) -> events.RunSpec:
    """The spec in the bytes of `encode_spec`. Raises Refusal."""
    return spec_from_wire(parse(data, event_pb2.RunSpec()))
