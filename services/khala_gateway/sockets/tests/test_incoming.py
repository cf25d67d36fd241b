"""What a client sends: however it is cut, it is read as `websockets`, on the other side, wrote it."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from services.khala_gateway.sockets.ws_door import incoming
from services.khala_gateway.sockets.ws_door.compression import agreed_deflate
from services.khala_gateway.sockets.ws_door.incoming import Incoming, Received, Violation

LIMIT = 70_000
SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 200, 65_535, 65_536, LIMIT])


def sent(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """The bytes of a client's frame."""
    return Frame(opcode, data, fin).serialize(mask=True)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[Received]]:
    """A message in fragments with control frames between them: its bytes, and what is read of it."""
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
    data = draw(st.binary(min_size=3, max_size=3)) * (draw(SIZES) // 3)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    parts = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    wire, read = b"", []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        wire += sent(Opcode.CONT if number else opcode, part, fin=last)
        read.append(Received(opcode, data) if last else Received(incoming.CONTINUATION, b""))
        if not last and draw(st.booleans()):
            ping = draw(st.binary(max_size=125))
            wire += sent(Opcode.PING, ping)
            read.append(Received(incoming.PING, ping))
    return wire, read


@given(st.lists(messages(), max_size=3), st.data())
def test_frames_are_read_however_they_are_cut(
    given_messages: list[tuple[bytes, list[Received]]], data: st.DataObject
) -> None:
    wire = b"".join(one for one, _ in given_messages) + sent(Opcode.CLOSE, Close(1000, "done").serialize())
    expected = [one for _, read in given_messages for one in read]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    reader = Incoming(LIMIT)
    read = [
        one for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True) for one in reader.read(wire[begin:end])
    ]
    assert read == [*expected, Received(incoming.CLOSE, Close(1000, "done").serialize())]


def test_one_byte_at_a_time_is_read_too() -> None:
    wire = sent(Opcode.BINARY, b"x" * 300) + sent(Opcode.PING, b"") + sent(Opcode.TEXT, b"")
    reader = Incoming(LIMIT)
    read = [one for byte in wire for one in reader.read(bytes((byte,)))]
    assert read == [Received(incoming.BINARY, b"x" * 300), Received(incoming.PING, b""), Received(incoming.TEXT, b"")]


def head(first: int, length: int) -> bytes:
    """The head of a masked frame, whose payload has not come."""
    if length < 126:
        return bytes((first, 0x80 | length))
    return bytes((first, 0xFF)) + length.to_bytes(8)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x82\x00", 1002),
        (head(0x83, 0), 1002),
        (head(0x8B, 0), 1002),
        (head(0xC2, 0), 1002),
        (head(0xA2, 0), 1002),
        (head(0x92, 0), 1002),
        (head(0x80, 0), 1002),
        (sent(Opcode.TEXT, b"a", fin=False) + head(0x81, 0), 1002),
        (head(0x09, 0), 1002),
        (head(0x89, 126), 1002),
        (head(0x82, LIMIT + 1), 1009),
        (head(0x82, 1 << 63), 1009),
        (sent(Opcode.TEXT, b"a" * LIMIT, fin=False) + head(0x80, 1), 1009),
        (sent(Opcode.CLOSE, b"\x03"), 1002),
        (sent(Opcode.CLOSE, b"\x03\xed"), 1002),
        (sent(Opcode.CLOSE, b"\x13\x88"), 1002),
        (sent(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
    ],
    ids=[
        "unmasked", "unknown opcode", "unknown control", "RSV1", "RSV2", "RSV3", "a continuation of nothing",
        "a message in a message", "a control frame in parts", "a long control frame", "a byte too many",
        "a length without end", "parts that are too long", "half a code", "a code that nobody may send",
        "a code above all", "a reason that is not UTF-8",
    ],
)  # fmt: skip
def test_what_breaks_the_protocol_is_refused_before_its_payload_comes(wire: bytes, code: int) -> None:
    with pytest.raises(Violation) as caught:
        list(Incoming(LIMIT).read(wire))
    assert caught.value.code == code
    assert incoming.violation_frame(code) == incoming.close_frame(code, incoming.CLOSE_REASONS[code])


@given(st.binary(max_size=64))
def test_no_bytes_do_more_than_break_the_protocol(wire: bytes) -> None:
    reader = Incoming(100)
    try:
        read = list(reader.read(wire))
    except Violation:
        return
    assert sum(len(one.data) for one in read) <= len(wire)


@given(st.lists(st.binary(min_size=1, max_size=40).map(lambda one: one * 50), min_size=1, max_size=4), st.booleans())
def test_a_compressed_message_in_parts_is_inflated(parts: list[bytes], takes_more: bool) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -12)
    made = [deflater.compress(part) + deflater.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    made[-1] = made[-1].removesuffix(b"\x00\x00\xff\xff")
    wire = b""
    for number, part in enumerate(made):
        frame = sent(Opcode.CONT if number else Opcode.BINARY, part, fin=number == len(made) - 1)
        wire += frame if number else bytes((frame[0] | 0x40,)) + frame[1:]
    whole = b"".join(parts)
    _, deflate = agreed_deflate(["permessage-deflate; client_max_window_bits"])
    reader = Incoming(len(whole) - (not takes_more), deflate)
    if takes_more:
        assert list(reader.read(wire))[-1] == Received(incoming.BINARY, whole)
    else:
        with pytest.raises(Violation) as caught:
            list(reader.read(wire))
        assert caught.value.code == 1009
