"""The letters. They have no word of anybody's, only the id of what they tell of, which is no secret.

People paste the commands in them into a shell, so the address is quoted for one."""

from __future__ import annotations

import shlex

from services.control.mail.domain.letters import Letter, Mail
from services.control.notices.limits import NOTICE_TTL

_NEW_DEVICE = """\
Somebody signed in to your account at OpenAgents on a device that was new to it,
on {at:%Y-%m-%d} at {at:%H:%M} UTC.

If it was you, do nothing. If not, end that session, and secure your mailbox and whatever
else you sign in with:

    oa login --email {email}
    oa session revoke {about}
"""

_KEY_CREATED = """\
A personal access token was made for your account at OpenAgents, on {at:%Y-%m-%d}
at {at:%H:%M} UTC. Whoever has it acts in your name.

If it was you, do nothing. If not, end it and the sessions that are not yours, and
secure your mailbox and whatever else you sign in with:

    oa login --email {email}
    oa key revoke {about}
    oa session revoke --others
"""


_ACCOUNT_DELETED = """\
Your account at OpenAgents was deleted on {at:%Y-%m-%d} at {at:%H:%M} UTC, with its
sessions, its personal access tokens and its own org. It can't be restored.

If it was not you, write to whoever runs the installation: the account was {about}.
This is the last mail that is sent for it.
"""


def new_device_letter(mail: Mail) -> Letter:
    """Tells of a session on a device that was new to the account."""
    return _letter(mail, "A new device signed in to your account", _NEW_DEVICE)


def key_letter(mail: Mail) -> Letter:
    """Tells of a new personal access token."""
    return _letter(mail, "A new personal access token for your account", _KEY_CREATED)


def deletion_letter(mail: Mail) -> Letter:
    """Tells of the deletion of the account."""
    return _letter(mail, "Your account was deleted", _ACCOUNT_DELETED)


def _letter(mail: Mail, subject: str, text: str) -> Letter:
    at = mail.expires_at - NOTICE_TTL
    facts = {"email": mail.address, "notice": mail.kind.value, "about": mail.about, "time": at.isoformat()}
    filled = text.format(at=at, email=shlex.quote(mail.address), about=mail.about)
    return Letter(mail.mail_id, mail.address, subject, filled, facts)
