"""WebSocket messages as RFC 6455 (5.2) has them."""

import pytest

from services.khala_gateway.feeds.domain import binary_message, payload_of, text_message


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (0xFFFF, b"\x82\x7e\xff\xff"),
        (0x10000, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_shortest_header_that_says_the_length(size: int, header: bytes) -> None:
    payload = b"x" * size
    assert binary_message(payload) == header + payload
    assert text_message(payload) == b"\x81" + header[1:] + payload
    assert payload_of(binary_message(payload)) == payload
