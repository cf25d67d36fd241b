"""Yesterday's bytes mean today what they meant then, to two decoders that share no code."""

from __future__ import annotations

import importlib

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from tests.contract.examples import EXAMPLES, VECTORS

NAMES = sorted(path.stem for path in VECTORS.glob("*.binpb"))


def _betterproto(message: Message):  # type: ignore[no-untyped-def]
    """The dataclass model of the same message, from the generated package of the same name."""
    package = message.DESCRIPTOR.file.package.removeprefix("openagents.")
    module = importlib.import_module(f"openagents_betterproto.{package}")
    return getattr(module, message.DESCRIPTOR.name)


def _parsed(name: str) -> Message:
    message = type(EXAMPLES[name])()
    message.ParseFromString((VECTORS / f"{name}.binpb").read_bytes())
    return message


def test_every_example_has_a_vector_and_every_vector_an_example() -> None:
    assert sorted(EXAMPLES) == NAMES


def test_every_event_and_client_frame_has_an_example() -> None:
    from openagents.runtime.v1.event_pb2 import EventBody
    from openagents.sync.v1.client_frame_pb2 import ClientFrame

    shown = {
        (type(inner), inner.WhichOneof(oneof))
        for example in EXAMPLES.values()
        for inner, oneof in ((getattr(example, "body", example), "kind"), (example, "body"))
        if oneof in inner.DESCRIPTOR.oneofs_by_name
    }
    wanted: set[tuple[type[Message], str | None]] = {
        (EventBody, field.name) for field in EventBody.DESCRIPTOR.oneofs_by_name["kind"].fields
    }
    wanted.update((ClientFrame, field.name) for field in ClientFrame.DESCRIPTOR.oneofs_by_name["body"].fields)
    assert wanted <= shown


@pytest.mark.parametrize("name", NAMES)
def test_protobuf_reads_the_bytes_and_the_json_alike(name: str) -> None:
    message = _parsed(name)
    from_json = json_format.Parse((VECTORS / f"{name}.json").read_text(), type(message)())
    assert message == EXAMPLES[name] == from_json
    assert message.SerializeToString(deterministic=True) == (VECTORS / f"{name}.binpb").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_betterproto_reads_the_same(name: str) -> None:
    message = _parsed(name)
    model = _betterproto(message)().parse((VECTORS / f"{name}.binpb").read_bytes())
    again = type(message)()
    again.ParseFromString(bytes(model))
    assert again == message


def test_a_changed_byte_is_noticed() -> None:
    """The comparison above bites: a vector whose content differs is not taken for equal."""
    name = "frame_event"
    data = bytearray((VECTORS / f"{name}.binpb").read_bytes())
    data[-1] ^= 1
    message = type(EXAMPLES[name])()
    message.ParseFromString(bytes(data))
    assert message != EXAMPLES[name]
