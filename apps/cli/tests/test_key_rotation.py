"""`oa key rotate` where no answer comes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_localstack.installation.ports import HOST
from oa_testing.peers.listener import Listener
from openagents.control.v1 import api_key_service_pb2 as keys_pb2
from openagents.control.v1 import service_account_service_pb2 as accounts_pb2

OLD = "apk_01JD8V0000000000000000000A"
AWAY = b'{"code": "unavailable", "message": "the database is away"}'


@asynccontextmanager
async def control_that_answers_no_rotation(asked: list[keys_pb2.RotateApiKeyRequest]) -> AsyncIterator[str]:
    """Its URL. The second time it asks for a longer wait than anybody waits."""
    token = accounts_pb2.ExchangeKeyResponse(token="token")
    token.expire_time.FromSeconds(int(time.time()) + 3600)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        status, kind, said = b"200 OK", b"application/proto", token.SerializeToString()
        if b"/RotateApiKey" in head:
            asked.append(keys_pb2.RotateApiKeyRequest.FromString(body))
            wait = b"\r\nRetry-After: 60" if len(asked) > 1 else b""
            status, kind, said = b"503 Service Unavailable" + wait, b"application/json", AWAY
        rest = b"Content-Type: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(said), said)
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + rest)
        await writer.drain()

    async with Listener(answer) as server:
        yield f"http://{HOST}:{server.port}"


async def test_it_asks_again_with_one_idempotency_key_and_says_how_to_go_on(tmp_path: Path) -> None:
    asked: list[keys_pb2.RotateApiKeyRequest] = []
    async with control_that_answers_no_rotation(asked) as url:
        program = Program(tmp_path, {"OA_CONTROL_URL": url, "OA_API_KEY": "oak_" + "a" * 43})
        done = await program("key", "rotate", OLD, "--overlap", "1h")
        assert done.status == Exit.UNREACHABLE, done.stderr
        assert len(asked) == 2
        assert asked[0] == asked[1]
        key = asked[0].idempotency_key
        assert f"oa key rotate {OLD} --overlap 3600s --idempotency-key {key}" in " ".join(done.stderr.split())
        again = await program("key", "rotate", OLD, "--overlap", "3600s", "--idempotency-key", key)
    assert again.status == Exit.UNREACHABLE
    assert asked[2] == asked[0]
