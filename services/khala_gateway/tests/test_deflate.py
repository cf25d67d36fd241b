"""permessage-deflate over real sockets: what is agreed on, what is shared, how far a client's bytes are inflated."""

import json
import zlib
from collections.abc import Callable

import pytest

from oa_khala import frames
from oa_khala.frames import Cursor, Form
from oa_platform.config.parsers import Address
from oa_testing.metrics import value_of
from openagents.projection.v1 import run_summary_pb2
from openagents.sync.v1 import frame_pb2
from services.khala_gateway.config import SocketSettings
from services.khala_gateway.feeds.metrics import DEFLATED_BYTES, INFLATED_BYTES
from services.khala_gateway.tests.harness import Client, Limits, T, U, running

LIMIT = 64 * 1024
ANY = Address("127.0.0.1", 0)
COMPRESSING = Limits().with_socket(deflate_from_bytes=256)
OFFER = "permessage-deflate"
OURS = f"{OFFER}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
TEXT, CONTINUATION, PING_FRAME = 0x1, 0x0, 0x9
FIN, RSV1 = 0x80, 0x40


async def _answer(url: str, offer: str) -> tuple[Client, str]:
    """A client that has offered this and knows nothing of compression, and what it was answered."""
    client = await Client.open(url, Form.JSON, additional_headers={"Sec-WebSocket-Extensions": offer})
    assert client.socket.response is not None
    return client, client.socket.response.headers.get("Sec-WebSocket-Extensions", "")


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (OFFER, OURS),
        (f"{OFFER}; client_max_window_bits", f"{OURS}; client_max_window_bits=12"),
        (f"{OFFER}; server_max_window_bits=12; client_max_window_bits=9", f"{OURS}; client_max_window_bits=9"),
        (f"{OFFER}; server_max_window_bits=15", OURS),
        (f"{OFFER}; server_max_window_bits=11", ""),
        (f"{OFFER}; server_max_window_bits=8", ""),
        (f"{OFFER}; server_max_window_bits=9, {OFFER}", OURS),
        (f"{OFFER}; level=9", ""),
        ("x-webkit-deflate-frame", ""),
    ],
)
async def test_what_is_agreed_on(offer: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # `websockets` refuses an answer to what it has not offered itself.
    monkeypatch.setattr("websockets.client.ClientProtocol.process_extensions", lambda *_: [])
    async with running(COMPRESSING) as stack:
        client, said = await _answer(stack.url, offer)
        assert said == answer
        await client.hello(stack.token(T))
        await client.next(frames.Welcome)


async def test_what_is_compressed_is_compressed_once_for_all_who_take_it() -> None:
    async with running(COMPRESSING) as stack:
        readers = [await stack.connect(T, compression=how) for how in ("deflate", "deflate", None)]
        for reader in readers:
            await reader.follow(T, Cursor("e1", 10))
        before, after = value_of(INFLATED_BYTES), value_of(DEFLATED_BYTES)
        stack.runtime.append(T, size=4_000)
        stack.runtime.append(T, size=10)
        for reader in readers:
            await reader.up_to(T, 12)
            assert reader.payloads == [b"e1:11" + b"." * 4_000, b"e1:12" + b"." * 10]
        assert (
            4_000 < value_of(INFLATED_BYTES) - before < 4_200
        )  # one message, and neither the small one nor a second time
        assert 0 < value_of(DEFLATED_BYTES) - after < 200


@pytest.mark.parametrize("form", Form)
async def test_history_a_snapshot_and_what_a_client_says_compressed(form: Form) -> None:
    async with running(COMPRESSING) as stack:
        log = stack.projector.logs[U]
        log.has_snapshot = True
        documents = [run_summary_pb2.RunSummary(run_id=f"run_{n}").SerializeToString() for n in range(300)]
        log.document = frame_pb2.DocumentSet(documents=documents).SerializeToString(deterministic=True)
        stack.runtime.append(T, count=5, size=1_000)
        client = await stack.connect(T, U, form=form, compression="deflate")
        assert client.socket.protocol.extensions
        await client.follow(T)
        assert client.seqs[T] == list(range(1, 16))
        before = value_of(INFLATED_BYTES)
        await client.subscribe(U)
        await client.next(frames.Subscribed)
        assert (await client.next(frames.Snapshot)).payload == log.document
        assert value_of(INFLATED_BYTES) > before


def _frame(first: int, data: bytes) -> bytes:
    """A frame of a client, masked with zeros."""
    size = len(data)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + data


def _deflate(*parts: bytes) -> list[bytes]:
    """The fragments of one compressed message."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    made = [deflater.compress(part) + deflater.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*made[:-1], made[-1].removesuffix(b"\x00\x00\xff\xff")]


def _fragments(*parts: bytes) -> bytes:
    made = _deflate(*parts)
    firsts = [TEXT | RSV1, *[CONTINUATION] * (len(parts) - 1)]
    firsts[-1] |= FIN
    return b"".join(map(_frame, firsts, made))


PING = json.dumps({"ping": {"nonce": "7"}}).encode()


# Made where they are sent: all workers of the tests collect them, and one sends them.
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (lambda: _fragments(b" " * (LIMIT + 1)), 1009),
        (lambda: _fragments(b" " * 50_000_000), 1009),
        (lambda: _fragments(b" " * 40_000, b" " * 40_000), 1009),
        (lambda: _fragments(b" " * LIMIT, b" " * 1_000_000), 1009),
        (lambda: _fragments(*[b" "] * (LIMIT + 1)), 1009),
        (lambda: _frame(FIN | RSV1 | PING_FRAME, b"x"), 1002),
        (lambda: _frame(RSV1 | TEXT, _deflate(b"x", b"")[0]) + _frame(FIN | RSV1 | CONTINUATION, b"x"), 1002),
        (lambda: _frame(TEXT, b"{") + _frame(FIN | RSV1 | CONTINUATION, b"x"), 1002),
        (lambda: _frame(FIN | RSV1 | TEXT, b"\xff" * 9), 1002),
        (lambda: _frame(FIN | 0x20 | TEXT, b"{}"), 1002),
        (lambda: _fragments(b"\xff"), 1007),
    ],
    ids=[
        "a byte too many", "a bomb", "fragments", "more after what fits", "many fragments",
        "a compressed control frame", "RSV1 in a later fragment", "the same, not compressed", "no deflate", "RSV2",
        "text that is not UTF-8",
    ],
)  # fmt: skip
async def test_a_client_is_inflated_up_to_the_limit_of_a_message(sent: Callable[[], bytes], code: int) -> None:
    async with running(COMPRESSING) as stack:
        client = await Client.open(stack.url, Form.JSON, compression="deflate")
        client.socket.transport.write(sent())
        assert await client.close_code() == ("", code)


@pytest.mark.parametrize("parts", [1, 2], ids=["at once", "in fragments"])
async def test_a_compressed_message_of_just_the_limit_is_taken(parts: int) -> None:
    async with running(COMPRESSING) as stack:
        client = await stack.connect(T, form=Form.JSON, compression="deflate")
        text = PING + b" " * (LIMIT - len(PING))
        client.socket.transport.write(_fragments(*(text[: LIMIT // parts], text[LIMIT // parts :])[:parts]))
        assert (await client.next(frames.Heartbeat)).nonce == 7


async def test_empty_fragments_take_no_memory() -> None:
    async with running(COMPRESSING) as stack:
        client = await stack.connect(T, form=Form.JSON)
        begun, ended = _frame(TEXT, PING[:3]), _frame(FIN | CONTINUATION, PING[3:])
        client.socket.transport.write(begun + _frame(CONTINUATION, b"") * 20_000)
        client.socket.transport.write(_frame(FIN | PING_FRAME, b"x"))
        pong = await client.socket.ping()  # answered when all of it was read
        await pong
        (reader,) = [one._incoming for one in stack.server.sockets]
        assert reader is not None
        assert reader._parts == [PING[:3]]
        client.socket.transport.write(ended)
        assert (await client.next(frames.Heartbeat)).nonce == 7


def test_it_is_for_the_operator_to_allow() -> None:
    assert SocketSettings(address=ANY).limits(LIMIT, (), 1).socket.deflate_from_bytes is None
    allowed = SocketSettings(address=ANY, deflate=True, deflate_from_bytes=99)
    assert allowed.limits(LIMIT, (), 1).socket.deflate_from_bytes == 99
