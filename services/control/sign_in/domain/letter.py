"""The letter with a code, and the letter without one."""

from __future__ import annotations

from services.control.mail.domain.letters import Letter, Mail

_TEXT = """\
Your code for OpenAgents: {code}

It is good once, until {until:%H:%M} UTC, on the device that asked for it.
If you didn't ask for it, nothing has happened: do nothing.
"""

_REFUSED_TEXT = """\
Somebody, perhaps you, asked for a code to sign in to OpenAgents with this address.

No account can be used with it here, so there is no code. If you expected one, ask
whoever runs this installation, or whoever wanted to invite you.
"""


def refused_letter(mail: Mail) -> Letter:
    """The letter to an address that can't sign in. Only the address's owner learns that."""
    # As many facts as in a letter with a code, because this is written while a stranger's guess is checked.
    facts = {
        "email": mail.address,
        "reason": "not_welcome",
        "challenge_id": mail.about,
        "expire_time": mail.expires_at.isoformat(),
    }
    return Letter(mail.mail_id, mail.address, "No sign-in with this address", _REFUSED_TEXT, facts)


def code_letter(mail: Mail, code: str) -> Letter:
    """The letter with the code. The code isn't in the subject, because a locked screen would show it."""
    facts = {
        "email": mail.address,
        "code": code,
        "challenge_id": mail.about,
        "expire_time": mail.expires_at.isoformat(),
    }
    return Letter(
        mail.mail_id, mail.address, "Your sign-in code", _TEXT.format(code=code, until=mail.expires_at), facts
    )
