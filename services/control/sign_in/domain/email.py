"""E-mail addresses, as far as sign-in has to understand them. Every address that comes in goes through here, once."""

from __future__ import annotations

import re
import unicodedata

from oa_base.refusal import Refusal
from oa_base.visible import is_visible

MAX_EMAIL_LENGTH = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets
_ADDRESS = re.compile(r"[^@\s,;<>()\"\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")

# Beyond what no terminal shows: private characters, and what this version of Unicode doesn't have, so that another
# version of Python or Postgres never finds another canonical form.
_UNSEEN_CATEGORIES = frozenset({"Co", "Cn"})
# A text may hold variation selectors, an emoji needs them; an address has no use for them.
_VARIATION_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


def canonical_email(text: str) -> str:
    """The one form in which an address is stored, compared, limited and written to: without blanks around it, in
    Unicode's composed form (NFC), in lower case.

    Two spellings that differ in case are one person: every large provider holds it so, and two accounts for one
    mailbox are worse than the theoretical loss. So are two that look alike to the last dot and differ in bytes only.
    Raises Refusal `invalid_value` for what can't be an address, line breaks above all, which would write headers into
    the e-mail; and for characters that nobody sees, with which one address would look like another.
    """
    address = text.strip()
    if any(map(_unseen, address)):
        raise _refused(
            "the address holds a character that can't be seen (a control, zero-width or direction mark); "
            "type it instead of pasting it"
        )
    # Lower case can take a letter apart again.
    address = _composed(_composed(address).lower())
    if len(address) > MAX_EMAIL_LENGTH or not _ADDRESS.fullmatch(address) or ".." in address:
        raise _refused("this is not an e-mail address; write one like ada@example.org")
    return address


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _unseen(character: str) -> bool:
    return (
        not is_visible(character)
        or unicodedata.category(character) in _UNSEEN_CATEGORIES
        or any(ord(character) in selectors for selectors in _VARIATION_SELECTORS)
    )


def _refused(message: str) -> Refusal:
    return Refusal("invalid_value", message, field="email")
