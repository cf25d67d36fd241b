"""E-mail addresses, as far as sign-in has to understand them."""

from __future__ import annotations

import re

from oa_errors import Refusal

MAX_EMAIL_LENGTH = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets
_ADDRESS = re.compile(r"[^@\s\x00-\x1f\x7f,;<>()\"\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


def normalized_email(text: str) -> str:
    """The address as it is stored and compared: without blanks around it, in lower case.

    Two spellings that differ in case are one person: every large provider holds it so, and two accounts for one
    mailbox are worse than the theoretical loss. Raises Refusal `invalid_value` for what can't be an address; line
    breaks above all, which would write headers into the e-mail.
    """
    address = text.strip()
    if len(address) > MAX_EMAIL_LENGTH or not _ADDRESS.fullmatch(address) or ".." in address:
        raise Refusal(
            "invalid_value", "This is not an e-mail address; one is for example ada@example.org.", field="email"
        )
    return address.lower()
