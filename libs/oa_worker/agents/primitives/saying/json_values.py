"""JSON values as events hold them, in a `google.protobuf.Struct` or `Value`: numbers are doubles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from oa_base.refusal import Refusal
from oa_wire.shapes import plain_json
from oa_worker.sdk.transport.wire import check_nesting
from openagents.runtime.v1 import event_pb2 as pb

M = TypeVar("M", bound=Message)


def struct_of(value: Mapping[str, object] | None, field: str) -> Struct | None:
    """Return names and values; None for None. Raises Refusal `invalid_value`, naming the path below `field`."""
    if value is None:
        return None
    plain: Any = plain_json(value, field)
    if not isinstance(plain, dict):
        raise Refusal("invalid_value", f"{field} must have names and values; give a mapping", field=field)
    return _read(plain, Struct(), lambda made: pb.EventBody(custom=pb.Custom(data=made)), field)


def value_of(value: object, field: str) -> Value:
    """Return any value that has a form in JSON. Raises as `struct_of` does."""
    return _read(
        plain_json(value, field), Value(), lambda made: pb.EventBody(tool_result=pb.ToolResult(result=made)), field
    )


def _read(plain: Any, into: M, in_event: Callable[[M], pb.EventBody], field: str) -> M:
    """Return what the authority can read in an event. A value that is a little flatter than what can't be parsed can be
    parsed alone, and not in an event."""
    _check_whole_numbers(plain, field)
    try:
        made = json_format.ParseDict(plain, into)
        check_nesting(in_event(made))
    except (json_format.ParseError, DecodeError, Refusal):  # the text of the first one shows the value
        raise Refusal("invalid_value", f"{field} is nested too deeply; give it flatter", field=field) from None
    return made


def _check_whole_numbers(plain: Any, field: str) -> None:
    left: deque[tuple[str, Any]] = deque([(field, plain)])
    while left:  # not recursive: the value may be nested more deeply than Python calls
        path, value = left.popleft()
        if isinstance(value, dict):
            left.extend((f"{path}.{name}", each) for name, each in value.items())
        elif isinstance(value, list):
            left.extend((f"{path}[{index}]", each) for index, each in enumerate(value))
        elif isinstance(value, int) and not _is_double(value):
            text = f"{path} is a whole number that would be stored as another one; give it as text"
            raise Refusal("invalid_value", text, field=path)


def _is_double(number: int) -> bool:
    try:
        return float(number) == number  # Python compares them exactly
    except OverflowError:
        return False
