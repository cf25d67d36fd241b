"""How mail leaves: driven against a real SMTP server, with and without TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import policy
from email.headerregistry import Address
from email.parser import BytesParser, Parser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from oa_base.refusal import Refusal
from oa_testing.peers.authority import Authority, server_context
from oa_testing.peers.listener import Listener
from oa_testing.postgres import free_port
from oa_testing.waiting import PATIENCE_S
from services.control.mail.domain.address import canonical_email
from services.control.mail.domain.letters import Letter, Outcome
from services.control.mail.door import ConsoleCarrier, SmtpCarrier, SmtpRelay

SENDER = Address("OpenAgents", "codes", "example.org")


def letter(address: str = "ada@example.org", number: int = 1) -> Letter:
    return Letter(f"mal_{number}", address, "Your sign-in code", "Your code: 12345678\n", {"code": f"{number:08d}"})


async def test_the_console_writes_codes_where_only_the_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "mail.jsonl"
    carrier = ConsoleCarrier(file)
    for number in (1, 2):
        assert await carrier.carry(letter(number=number)) is Outcome.SENT
    assert [json.loads(line)["code"] for line in file.read_text().splitlines()] == ["00000001", "00000002"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    assert await ConsoleCarrier(tmp_path / "nowhere" / "mail.jsonl").carry(letter()) is Outcome.LATER


def test_a_letter_does_not_show_its_code() -> None:
    assert "12345678" not in repr(letter())
    assert "00000001" not in repr(letter())


# ------------------------------------------------------------------------------------------------- through a relay


@dataclass
class Box:
    """What a relay took: envelope and message; `answer` refuses recipients."""

    mails: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    answer: str = ""

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, options: Any) -> str:
        """Takes the recipient, or answers."""
        if self.answer:
            return self.answer
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        """Keeps the mail."""
        self.mails.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 ok"


@asynccontextmanager
async def relay(box: Box, **options: Any) -> AsyncIterator[int]:
    """A real SMTP server on a port."""
    sessions: list[Server] = []

    def begun() -> Server:
        sessions.append(Server(box, hostname="relay", **options))
        return sessions[-1]

    server = await asyncio.get_running_loop().create_server(begun, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for session in sessions:
            if session.transport is not None:
                session.transport.close()


def smtp(port: int, **changed: Any) -> SmtpCarrier:
    given_: dict[str, Any] = {"host": "127.0.0.1", "sender": SENDER, "tls": "none", "timeout_s": PATIENCE_S}
    return SmtpCarrier(SmtpRelay(port=port, **(given_ | changed)))


def recipients(box: Box) -> Sequence[tuple[list[str], list[str]]]:
    """Of each mail, those of the envelope, and all that a mail program would read in its headers."""
    read = []
    for _, envelope, content in box.mails:
        message = Parser(policy=policy.SMTPUTF8).parsestr(content.decode())
        named = [one.addr_spec for name in ("To", "Cc", "Bcc") if name in message for one in message[name].addresses]
        read.append((envelope, named))
    return read


async def test_a_letter_goes_through_a_relay() -> None:
    box = Box()
    async with relay(box) as port:
        assert await smtp(port).carry(letter()) is Outcome.SENT
    ((sender, _, content),) = box.mails
    message = BytesParser(policy=policy.SMTP).parsebytes(content)
    assert sender == "codes@example.org"
    assert (message["From"], message["Message-ID"]) == ("OpenAgents <codes@example.org>", "<mal_1@example.org>")
    assert message["Date"].datetime is not None
    assert "12345678" in message.get_content()
    assert "12345678" not in message["Subject"]


_TYPED = [
    "ada@example.org", " Ada+x@Example.ORG", "rené@example.org", "ada@BÜCHER.example", "o'hara@example.org",
    "a" * 64 + "@" + ".".join(["b" * 60] * 3) + ".org", "{a}|b~`^%&*/!#$@example.org", "a=?b@example.org",
    "a?=b@example.org", "jörg@bücher.example", "mallory[x]@corp.example", "x0:bob@e.org",
    "=?utf-8?q?bob=40evil.test?=@e.org", "=?utf-8?q?a=0d=0aBcc:x?=@e.org", "a,b@e.org", "<bob@e.org>x@e.org",
    '"bob@e.org"@e.org', "a(bob@e.org)@e.org", "bob@e.org;a@e.org",
]  # fmt: skip
_PIECES = ["bob", "=?utf-8?q?", "?=", "=40", "=0d=0a", "Bcc:", "[", "]", ":", ";", ",", "<", ">", '"', "(", ")", "\\",
           ".", "@", "%", "é", "ß", "\u0130", "\u05d0", "x", " ", "\t", "\r\n", "-", "_"]  # fmt: skip
_LOCALS = st.one_of(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join), st.text(max_size=20))


async def _as_it_arrives(addresses: Sequence[str]) -> None:
    """Each gets one mail, whose envelope and header name it and nobody else."""
    box = Box()
    async with relay(box, enable_SMTPUTF8=True) as port:
        for address in addresses:
            assert await smtp(port).carry(letter(address)) is Outcome.SENT, address
    assert recipients(box) == [([address], [address]) for address in addresses]


@pytest.mark.parametrize("typed", _TYPED)
async def test_envelope_and_header_name_the_account_or_the_address_is_refused(typed: str) -> None:
    with suppress(Refusal):
        await _as_it_arrives([canonical_email(typed)])


@settings(max_examples=60, deadline=None)
@given(st.lists(_LOCALS, min_size=1, max_size=20), st.sampled_from(["e.org", "bücher.example", "corp.local"]))
def test_whatever_address_is_taken_is_the_one_that_is_written_to(names: list[str], domain: str) -> None:
    taken = []
    for name in names:
        with suppress(Refusal):
            taken.append(canonical_email(f"{name}@{domain}"))
    assume(taken)
    asyncio.run(_as_it_arrives(taken))


@pytest.mark.parametrize(("answer", "outcome"), [("550 nobody here", Outcome.REFUSED), ("450 not now", Outcome.LATER)])
async def test_what_a_relay_refuses_for_good_is_not_tried_again(answer: str, outcome: Outcome) -> None:
    async with relay(Box(answer=answer)) as port:
        assert await smtp(port).carry(letter()) is outcome


async def test_a_relay_without_unicode_refuses_such_an_address_for_good() -> None:
    box = Box()
    async with relay(box, enable_SMTPUTF8=False) as port:
        assert await smtp(port).carry(letter("rené@example.org")) is Outcome.REFUSED
        assert await smtp(port).carry(letter("ada@xn--bcher-kva.example")) is Outcome.SENT


async def test_a_relay_that_is_away_is_asked_again() -> None:
    assert await smtp(free_port()).carry(letter()) is Outcome.LATER


@pytest.mark.parametrize("greeting", [b"554 no\r\n", b"\xff\xff\r\n"])
async def test_a_relay_that_says_no_or_nonsense_is_asked_again(greeting: bytes) -> None:
    async def session(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    async with Listener(session) as server:
        assert await smtp(server.port).carry(letter()) is Outcome.LATER


async def test_a_relay_that_says_nothing_is_given_up_and_asked_again() -> None:
    async def session(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Listener(session) as server:
        with capture_logs() as said:
            assert await smtp(server.port, timeout_s=0.2).carry(letter()) is Outcome.LATER
            assert said[-1]["error"].endswith("TimeoutError")


@dataclass
class Mute(Box):
    """A relay that takes a letter, and says nothing more."""

    async def handle_QUIT(self, _server: Any, _session: Any, _envelope: Any) -> str:
        """Never answers."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


async def test_a_letter_that_a_relay_took_is_not_sent_again_if_the_relay_says_no_goodbye() -> None:
    box = Mute()
    async with relay(box) as port:
        with capture_logs() as said:
            assert await smtp(port).carry(letter()) is Outcome.SENT
    assert len(box.mails) == 1
    assert [(line["event"], line["outcome"]) for line in said] == [("smtp_failed", Outcome.SENT)]


# ------------------------------------------------------------------------------------------------- with TLS


@dataclass
class Contexts:
    """A relay's side, and that of a client which trusts who issued its certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def contexts(folder: Path) -> Contexts:
    folder.mkdir()
    authority = Authority()
    return Contexts(
        server_context(folder, authority.issue("localhost")),
        ssl.create_default_context(cadata=authority.certificate.decode()),
    )


# A server whose client ends the handshake leaves its transport to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_with_starttls_the_relay_is_believed_by_its_certificate(tmp_path: Path) -> None:
    ours, other = contexts(tmp_path / "ours"), contexts(tmp_path / "other")
    box = Box()
    async with relay(box, tls_context=ours.server, require_starttls=True) as port:
        at = {"host": "localhost", "tls": "starttls"}
        assert await smtp(port, **at, trusted=ours.client).carry(letter()) is Outcome.SENT
        assert await smtp(port, **at, trusted=other.client).carry(letter()) is Outcome.LATER
        assert await smtp(port, **at).carry(letter()) is Outcome.LATER, "what the system trusts"
        assert await smtp(port, tls="none").carry(letter()) is Outcome.LATER
    assert len(box.mails) == 1


async def test_a_relay_that_does_not_offer_starttls_gets_no_letter() -> None:
    box = Box()
    async with relay(box) as port:
        assert await smtp(port, tls="starttls").carry(letter()) is Outcome.LATER
    assert not box.mails


async def test_the_password_goes_over_tls_alone(tmp_path: Path) -> None:
    tried: list[bytes] = []

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given_: Any) -> AuthResult:
        tried.append(given_.password)
        return AuthResult(success=given_.password == b"right", handled=False)

    ours, box = contexts(tmp_path / "ours"), Box()
    options = {"tls_context": ours.server, "authenticator": authenticate, "auth_required": True}
    async with relay(box, **options) as port:
        at = {"host": "localhost", "tls": "starttls", "trusted": ours.client, "user": "control"}
        assert await smtp(port, **at, password="wrong").carry(letter()) is Outcome.LATER
        assert await smtp(port, **at, password="right").carry(letter()) is Outcome.SENT
    assert set(tried) == {b"wrong", b"right"}
    assert len(box.mails) == 1
