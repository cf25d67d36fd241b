"""Carriers of mail: through a relay, or into the log of a developer's machine."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from pathlib import Path

import structlog
from aiosmtplib import SMTP
from aiosmtplib.errors import (
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
)

from oa_platform.tls.protection import system_trust
from services.control.mail.domain.letters import Letter, Outcome
from services.control.mail.limits import GOODBYE_S

MAX_LINE_LENGTH = 998
"""RFC 5322, 2.1.1. Headers are not folded before this length, because folding would change a long address."""
_PERMANENT = 500
"""The lowest code with which a relay says that trying again is of no use."""

_log = structlog.get_logger(__name__)


class ConsoleCarrier:
    """For development: writes a letter's facts to the log and, if there is a file, to its end as a line of JSON."""

    timeout = timedelta(seconds=10)

    def __init__(self, file: Path | None) -> None:
        self._file = file

    async def carry(self, letter: Letter) -> Outcome:
        """Show the letter to people who can read this machine's log. Codes are written nowhere else."""
        _log.warning("development_mail", facts=dict(letter.facts), note="console: development only")
        if self._file is None:
            return Outcome.SENT
        try:
            await asyncio.to_thread(_append_private, self._file, json.dumps(dict(letter.facts)))
        except OSError as error:
            _log.error("dev_mail_file_failed", error=type(error).__name__)
            return Outcome.LATER
        return Outcome.SENT


def _append_private(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as out:
        os.fchmod(descriptor, 0o600)
        out.write(line + "\n")


@dataclass(frozen=True, kw_only=True)
class SmtpRelay:
    """The relay that accepts the mail. `user` empty: without signing in. `tls`: "starttls", "implicit" or "none". The
    certificate is checked against `trusted`, or else the system's trust store."""

    host: str
    port: int
    sender: Address
    tls: str = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 10.0
    trusted: ssl.SSLContext | None = None


class SmtpCarrier:
    """Hands letters to a relay."""

    def __init__(self, relay: SmtpRelay) -> None:
        self._relay = relay
        self.timeout = timedelta(seconds=relay.timeout_s)

    async def carry(self, letter: Letter) -> Outcome:
        """Hand the letter over, within the relay's timeout. The relay has GOODBYE_S more to end the session."""
        outcome = Outcome.LATER
        try:
            async with asyncio.timeout(self._relay.timeout_s) as limit, self._session() as smtp:
                await self._send(smtp, letter)
                outcome = Outcome.SENT
                limit.reschedule(asyncio.get_running_loop().time() + GOODBYE_S)
        except (OSError, SMTPException, UnicodeError) as error:
            # A relay that accepted the letter has it, even if it does not say goodbye: sent again, it arrives twice.
            if outcome is Outcome.LATER and _is_permanent(error):
                outcome = Outcome.REFUSED
            where = f"{self._relay.host}:{self._relay.port}"
            _log.error("smtp_failed", relay=where, error=type(error).__name__, outcome=outcome)
        return outcome

    def _session(self) -> SMTP:
        relay = self._relay
        return SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.user or None,
            password=relay.password or None,
            timeout=relay.timeout_s,
            use_tls=relay.tls == "implicit",
            start_tls=relay.tls == "starttls",
            tls_context=None if relay.tls == "none" else relay.trusted or system_trust(),
        )

    async def _send(self, smtp: SMTP, letter: Letter) -> None:
        sender = self._relay.sender
        options = [] if letter.address.isascii() else ["SMTPUTF8"]
        await smtp.sendmail(sender.addr_spec, [letter.address], message_of(sender, letter), mail_options=options)


def message_of(sender: Address, letter: Letter) -> bytes:
    """The mail in the form that is handed over. Its `To:` is exactly the address of its envelope."""
    local, _, domain = letter.address.rpartition("@")
    policy = SMTP_POLICY.clone(utf8=not letter.address.isascii(), max_line_length=MAX_LINE_LENGTH)
    message = EmailMessage(policy)
    message["From"] = sender
    message["To"] = Address(username=local, domain=domain)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{letter.mail_id}@{sender.domain}>"
    message["Subject"] = letter.subject
    message.set_content(letter.text)
    return message.as_bytes()


def _is_permanent(error: Exception) -> bool:
    """Whether the relay refuses this letter for good, rather than only us, or only now."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(map(_is_permanent, error.recipients))
    if isinstance(error, SMTPRecipientRefused | SMTPDataError):
        return error.code >= _PERMANENT
    return isinstance(error, SMTPNotSupported)
