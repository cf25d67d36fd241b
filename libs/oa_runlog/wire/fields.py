"""Functions for reading any message: they parse bytes, check required fields, map enums, and give refusals a path."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from oa_base.refusal import Refusal
from oa_wire.strict.text import Unstrict, check_whole, read_json

M = TypeVar("M", bound=ProtoMessage)
E = TypeVar("E", bound=enum.StrEnum)
T = TypeVar("T")


class EnumMap:
    """Maps an enum of ours to its wire enum: wire name = prefix + our value in upper case."""

    def __init__(self, ours: type[E], wire: Any, prefix: str) -> None:
        self._to_wire: dict[enum.StrEnum, int] = {
            member: int(wire.Value(f"{prefix}{member.value.upper()}")) for member in ours
        }
        self._from_wire = {number: member for member, number in self._to_wire.items()}

    def to_wire(self, member: enum.StrEnum) -> Any:
        """The number of a member."""
        return self._to_wire[member]

    def from_wire(self, number: int, field: str) -> Any:
        """The member with a number. Raises Refusal `invalid_enum`, naming `field`."""
        try:
            return self._from_wire[number]
        except KeyError:
            raise Refusal("invalid_enum", f"{field} must be one of its named values", field=field) from None


def need(value: Any, field: str) -> Any:
    """Return `value`. Raises Refusal `missing_field`, naming `field`, if it is empty or 0."""
    if not value:
        raise Refusal("missing_field", f"{field} must be set", field=field)
    return value


def json_text(text: str, field: str) -> str:
    """Return `text`. Raises Refusal `invalid_value`, naming `field`, if it is not one unambiguous JSON text."""
    return _read(read_json, text, field)


def asked_json_text(text: str, field: str) -> str:
    """Return `text`, which `json_text` takes and somebody sends now. Raises Refusal `invalid_value` for half
    characters, which logs of earlier releases may hold."""
    return _read(check_whole, text, field)


def _read(read: Callable[[str], object], text: str, field: str) -> str:
    try:
        read(text)
    except Unstrict as error:
        raise Refusal("invalid_value", f"{field} must be JSON with one meaning: {error}", field=field) from None
    except ValueError:
        raise Refusal("invalid_value", f"{field} must be one JSON text", field=field) from None
    return text


def part(message: Any, name: str, read: Callable[[Any], T]) -> T:
    """The field `name` of `message`, read by `read`. Refusals name the path from `message`."""
    try:
        return read(getattr(message, name))
    except Refusal as refusal:
        raise refusal.under(name) from None


def parse(data: bytes, empty: M) -> M:
    """The message in `data`, parsed into `empty`. Raises Refusal `malformed_message`."""
    try:
        empty.ParseFromString(data)
    except DecodeError:
        raise Refusal("malformed_message", f"the bytes must be a {empty.DESCRIPTOR.name}") from None
    return empty
