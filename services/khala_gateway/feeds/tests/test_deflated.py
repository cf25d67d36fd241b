"""Messages that are compressed once for everybody (RFC 7692)."""

import random
import zlib
from collections.abc import Callable

import pytest

from oa_khala.frames import Form
from oa_khala.wire import event_frame
from services.khala_gateway.feeds.app.entries import Entry, join
from services.khala_gateway.feeds.domain import (
    ENCODINGS,
    WINDOW_BITS,
    binary_message,
    deflated,
    encoding_of,
    payload_of,
    text_message,
)

TOPIC = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"


def inflated(message: bytes) -> bytes:
    """The payload of a compressed message, as a client without a context reads it."""
    return zlib.decompressobj(-WINDOW_BITS).decompress(payload_of(message) + b"\x00\x00\xff\xff")


@pytest.mark.parametrize("size", [1, 60, 5_000, 70_000])
@pytest.mark.parametrize("make", [binary_message, text_message])
def test_any_client_without_a_context_can_read_it(make: Callable[[bytes], bytes], size: int) -> None:
    payload = b"abc, " * size
    plain = make(payload)
    message = deflated(plain, 0)
    if message is plain:
        assert size == 1
        return
    assert message[0] == plain[0] | 0x40
    assert len(message) < len(plain)
    assert inflated(message) == payload


def test_what_is_small_or_would_not_become_smaller_stays_as_it_is() -> None:
    noise = binary_message(random.Random(1).randbytes(3_000))
    assert deflated(noise, 0) is noise
    small, enough = binary_message(b"x" * 99), binary_message(b"x" * 100)
    assert deflated(small, 100) is small
    assert inflated(deflated(enough, 100)) == b"x" * 100
    empty = binary_message(b"")
    assert deflated(empty, 0) is empty


def test_each_encoding_of_an_entry_is_made_once() -> None:
    entry = Entry(event_frame(TOPIC, 1, b"payload " * 100))
    encodings = [encoding_of(form, deflate_from) for form in Form for deflate_from in (None, 10)]
    assert sorted(encoding.number for encoding in encodings) == list(range(ENCODINGS))
    messages = [entry.message(encoding) for encoding in encodings]
    assert len(set(messages)) == ENCODINGS
    assert all(entry.message(encoding) is message for encoding, message in zip(encodings, messages, strict=True))
    for plain, compressed in zip(messages[::2], messages[1::2], strict=True):
        assert inflated(compressed) == payload_of(plain)
    assert join(1, [entry, entry], encoding_of(Form.PROTO, 10)).data == 2 * messages[1]
