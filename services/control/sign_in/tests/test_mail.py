"""How codes get to people."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_testing.postgres import free_port
from oa_testing.waiting import PATIENCE_S
from services.control.sign_in.door.mail import ConsoleMailer, SmtpMailer, SmtpRelay
from services.control.sign_in.limits import MAX_SMTP_DELIVERIES

EXPIRES = datetime(2026, 1, 1, 12, 10, tzinfo=UTC)


async def test_the_console_writes_codes_where_only_the_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "mail.jsonl"
    mailer = ConsoleMailer(file)
    for code in ("00000001", "00000002"):
        await mailer.send_code("ada@example.org", code, EXPIRES)
    assert [json.loads(line)["code"] for line in file.read_text().splitlines()] == ["00000001", "00000002"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="unavailable"):
        await ConsoleMailer(tmp_path / "nowhere" / "mail.jsonl").send_code("ada@example.org", "00000001", EXPIRES)


@asynccontextmanager
async def relay(
    port: int,
    received: list[bytes],
    greeting: bytes = b"220 relay\r\n",
    *,
    together: int = 1,
    most: list[int] | None = None,
) -> AsyncIterator[None]:
    """As much of an SMTP server as a client needs to see (RFC 5321). `most` notes how many clients there are.

    It greets nobody before `together` of them have come, and those who come then have to wait a little.
    """
    enough = asyncio.Event()
    clients: set[asyncio.StreamWriter] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        if most is not None:
            most.append(len(clients))
        if len(clients) >= together:
            enough.set()
        await enough.wait()
        if together > 1:
            await asyncio.sleep(0.1)
        writer.write(greeting)
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                received.append(await reader.readuntil(b"\r\n.\r\n"))
            if verb == b"QUIT":
                clients.discard(writer)
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            await writer.drain()
            if verb == b"QUIT":
                break
        clients.discard(writer)
        writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", port)
    async with server:
        yield


def smtp(port: int) -> SmtpMailer:
    return SmtpMailer(
        SmtpRelay(host="127.0.0.1", port=port, sender="codes@example.org", tls="none", timeout_s=PATIENCE_S)
    )


async def test_a_code_goes_through_a_relay() -> None:
    received: list[bytes] = []
    port = free_port()
    async with relay(port, received):
        await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)
    mail = message_from_bytes(received[0])
    assert (mail["To"], mail["From"]) == ("ada@example.org", "codes@example.org")
    assert "12345678" in str(mail.get_payload())
    assert "12345678" not in str(mail["Subject"])


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"\xff\xff\r\n", None])
async def test_a_relay_that_is_away_or_says_no_is_a_refusal(greeting: bytes | None) -> None:
    port = free_port()
    if greeting is None:
        with pytest.raises(Refusal, match="unavailable"):
            await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)
        return
    async with relay(port, [], greeting):
        with pytest.raises(Refusal, match="unavailable"):
            await smtp(port).send_code("ada@example.org", "12345678", EXPIRES)


async def test_few_codes_are_on_their_way_to_the_relay_at_a_time() -> None:
    received: list[bytes] = []
    most: list[int] = []
    port = free_port()
    async with relay(port, received, together=MAX_SMTP_DELIVERIES, most=most):
        mailer = smtp(port)
        sending = [mailer.send_code(f"p{number}@example.org", "12345678", EXPIRES) for number in range(20)]
        await asyncio.gather(*sending)
    assert len(received) == 20
    assert max(most) == MAX_SMTP_DELIVERIES
