"""Messages that are no frames, or break a limit: each is answered as docs/protocol/khala.md says."""

import json
from collections.abc import Callable

import pytest
import websockets.asyncio.client as ws_client
from websockets.exceptions import InvalidStatus

from oa_khala import frames
from oa_khala.frames import Form
from oa_khala.server.session import CLIENT_BUILD
from oa_testing.postgres import REPOSITORY
from services.khala_gateway.sockets.ws_door.incoming import CLOSE_REASONS
from services.khala_gateway.tests.harness import Client, Stack, T, running

PING = '{"ping": {"nonce": "1"}}'
# Single frames: text that is not UTF-8 and binary that claims to be compressed, masked with zeros; unmasked binary.
NOT_UTF8 = b"\x81\x81\0\0\0\0\xff"
COMPRESSED = b"\xc2\x81\0\0\0\0x"
UNMASKED = b"\x82\x01x"


def hello(token: str) -> str:
    """Hello with this token, as JSON."""
    return json.dumps(
        {
            "hello": {
                "token": token,
                "deviceId": "dev_1",
                "clientBuildId": "test/1",
                "protocolVersion": 1,
                "schemaVersion": 1,
            }
        }
    )


def topics(*names: str) -> str:
    """Subscribe, as JSON."""
    return json.dumps({"subscribe": {"topics": [{"topic": name} for name in names]}})


def welcomed(then: str) -> Callable[[Stack], list[str | bytes]]:
    """Hello, and then a message."""
    return lambda stack: [hello(stack.token(T)), then]


@pytest.mark.parametrize(
    ("form", "messages", "reason", "code"),
    [
        (Form.PROTO, lambda _: [PING], "protocol_violation", 4400),
        (Form.JSON, lambda _: [PING.encode()], "protocol_violation", 4400),
        (Form.READABLE, lambda _: [PING.encode()], "protocol_violation", 4400),
        (Form.PROTO, lambda _: [b"\xff"], "malformed_message", 4400),
        (Form.JSON, lambda _: ["{"], "malformed_message", 4400),
        (Form.JSON, lambda _: ['{"hallo": {}}'], "malformed_message", 4400),
        (Form.JSON, lambda _: [PING[:-1] + ", " + PING[1:]], "malformed_message", 4400),
        (Form.JSON, lambda _: ["{}"], "missing_payload", 4400),
        (Form.JSON, lambda _: ['{"hello": {"token": "x"}}'], "missing_field", 4400),
        (Form.JSON, lambda _: [hello("x" * 8_193)], "invalid_value", 4400),
        (Form.JSON, welcomed(topics(*[T] * 129)), "invalid_value", 4400),
        (Form.JSON, lambda _: ["x" * 65_537], "", 1009),
    ],
    ids=[
        "text", "binary", "binary in a form for people", "no message", "no JSON", "no such field", "a field twice",
        "no body", "a field is missing", "a long token", "many topics", "a long message",
    ],
)  # fmt: skip
async def test_a_message_that_is_no_frame_ends_the_connection(
    form: Form, messages: Callable[[Stack], list[str | bytes]], reason: str, code: int
) -> None:
    async with running() as stack:
        client = await Client.open(stack.url, form)
        for message in messages(stack):
            await client.socket.send(message)
        assert await client.close_code() == (reason, code)
        assert client.socket.close_reason == (reason or "request_too_large")


@pytest.mark.parametrize(
    ("form", "data", "code", "reason"),
    [
        (Form.JSON, NOT_UTF8, 1007, "malformed_message"),
        (Form.READABLE, NOT_UTF8, 1007, "malformed_message"),
        (Form.PROTO, COMPRESSED, 1002, "protocol_violation"),
        (Form.PROTO, UNMASKED, 1002, "protocol_violation"),
    ],
    ids=["text that is not UTF-8", "the same in the other JSON", "compressed", "unmasked"],
)
async def test_what_is_no_websocket_is_told_by_the_close_alone(form: Form, data: bytes, code: int, reason: str) -> None:
    async with running() as stack:
        client = await Client.open(stack.url, form)
        client.socket.transport.write(data)
        assert await client.close_code() == ("", code)
        assert client.socket.close_reason == reason


def test_the_page_has_the_reasons_of_closes_and_the_form_of_a_client_build() -> None:
    page = (REPOSITORY / "docs/protocol/khala.md").read_text("utf-8")
    for code, reason in CLOSE_REASONS.items():
        assert f"close {code} `{reason}`" in page
    assert f"`{CLIENT_BUILD.pattern}`, for example `acme-go/1.0`" in page
    assert CLIENT_BUILD.fullmatch("acme-go/1.0")


async def test_a_topics_name_that_is_too_long_is_refused_alone() -> None:
    async with running() as stack:
        client = await stack.connect(T, form=Form.JSON)
        await client.socket.send(topics("x" * 161, T))
        error = await client.next(frames.ErrorFrame)
        assert (error.topic, error.reason) == ("x" * 160, "invalid_topic")
        assert (await client.next(frames.Subscribed)).topic == T


async def test_a_request_that_is_too_large_is_refused() -> None:
    async with running() as stack:
        with pytest.raises(InvalidStatus) as caught:
            await ws_client.connect(stack.url, proxy=None, additional_headers={"X-Long": "x" * 16_384})
        assert caught.value.response.status_code == 431
