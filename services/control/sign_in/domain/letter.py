"""The mail with a code."""

from __future__ import annotations

from services.control.mail.domain.letters import Letter, Mail

_TEXT = """\
Your code for OpenAgents: {code}

It is good once, until {until:%H:%M} UTC, on the device that asked for it.
If you didn't ask for it, nothing has happened: do nothing.
"""


def code_letter(mail: Mail, code: str) -> Letter:
    """The letter. The code isn't in the subject, which a locked screen would show."""
    facts = {
        "email": mail.address,
        "code": code,
        "challenge_id": mail.about,
        "expire_time": mail.expires_at.isoformat(),
    }
    return Letter(
        mail.mail_id, mail.address, "Your sign-in code", _TEXT.format(code=code, until=mail.expires_at), facts
    )
