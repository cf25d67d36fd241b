"""The mail about an invitation."""

from __future__ import annotations

import shlex

from services.control.mail.domain.letters import Letter, Mail

_TEXT = """\
Somebody invited you to work together at OpenAgents.

Sign in with this address to see who, and to accept or decline:

    oa login --email {email}
    oa invitation list

The invitation {invitation_id} is open until {until:%Y-%m-%d %H:%M} UTC.
If you don't expect one, do nothing.
"""


def invitation_letter(mail: Mail) -> Letter:
    """The letter. It contains no text from the inviter or the org but the address, so nobody can use it to write to a
    stranger. The address is quoted for a shell, because people paste the commands into one."""
    facts = {"email": mail.address, "invitation_id": mail.about, "expire_time": mail.expires_at.isoformat()}
    text = _TEXT.format(email=shlex.quote(mail.address), invitation_id=mail.about, until=mail.expires_at)
    return Letter(mail.mail_id, mail.address, "You are invited to an org", text, facts)
