"""How sign-in codes get to people."""

from __future__ import annotations

import asyncio
import json
import os
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path

import structlog

from oa_base.refusal import Refusal
from services.control.sign_in.limits import MAX_SMTP_DELIVERIES

_log = structlog.get_logger(__name__)


class ConsoleMailer:
    """For development: the code is in the log and, when there is a file, in its last line as JSON."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    async def send_code(self, email: str, code: str, expires_at: datetime) -> None:
        """Show the code to whoever can read this machine's log. The one place where a code is written."""
        _log.warning("sign_in_code", email=email, sign_in_code=code, note="console mailer: development only")
        if self._file:
            line = json.dumps({"email": email, "code": code, "expire_time": expires_at.isoformat()})
            await asyncio.to_thread(_append_private, self._file, line)


def _append_private(file: Path, line: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as out:
            os.fchmod(descriptor, 0o600)
            out.write(line + "\n")
    except OSError as error:
        _log.error("dev_mail_file_failed", error=type(error).__name__)
        raise _undelivered() from None


@dataclass(frozen=True, kw_only=True)
class SmtpRelay:
    """Where e-mails are handed over. `user` empty: without signing in. `tls`: "starttls", "implicit" or "none"."""

    host: str
    port: int
    sender: str
    tls: str = "starttls"
    user: str = ""
    password: str = ""
    timeout_s: float = 10.0

    def __repr__(self) -> str:
        return f"SmtpRelay({self.host}:{self.port})"


class SmtpMailer:
    """Hands codes to a relay."""

    def __init__(self, relay: SmtpRelay) -> None:
        self._relay = relay
        # Threads of its own: a slow relay must not use up those that everything else in the process shares.
        self._threads = ThreadPoolExecutor(MAX_SMTP_DELIVERIES, thread_name_prefix="smtp")

    async def send_code(self, email: str, code: str, expires_at: datetime) -> None:
        """Hand the e-mail over. Raises Refusal `unavailable` when the relay doesn't take it."""
        message = code_message(self._relay.sender, email, code, expires_at)
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._deliver, message)
        except (OSError, smtplib.SMTPException) as error:
            _log.error("smtp_failed", relay=repr(self._relay), error=type(error).__name__)
            raise _undelivered() from None

    def _connect(self) -> smtplib.SMTP:
        relay = self._relay
        if relay.tls != "implicit":
            return smtplib.SMTP(relay.host, relay.port, timeout=relay.timeout_s)
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(relay.host, relay.port, timeout=relay.timeout_s, context=context)

    def _deliver(self, message: EmailMessage) -> None:
        relay = self._relay
        with self._connect() as smtp:
            if relay.tls == "starttls":
                smtp.starttls(context=ssl.create_default_context())
            if relay.user:
                smtp.login(relay.user, relay.password)
            smtp.send_message(message)


def code_message(sender: str, email: str, code: str, expires_at: datetime) -> EmailMessage:
    """The e-mail with a code. The code isn't in the subject, which a locked screen would show."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = email
    message["Subject"] = "Your sign-in code"
    message.set_content(
        f"Your code for OpenAgents: {code}\n\n"
        f"It is good once, until {expires_at:%H:%M} UTC, on the device that asked for it.\n"
        "If you didn't ask for it, nothing has happened: do nothing.\n"
    )
    return message


def _undelivered() -> Refusal:
    return Refusal("unavailable", "the code could not be sent; try again in a moment", retry_after_ms=1000)
