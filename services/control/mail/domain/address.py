"""E-mail addresses. Every incoming address passes through this module once."""

from __future__ import annotations

import unicodedata
from email.headerregistry import Address

import email_validator
from email_validator import EmailNotValidError, validate_email

from oa_base.refusal import Refusal
from oa_base.visible import is_visible

MAX_EMAIL_BYTES = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets
MAX_NAME_BYTES = 64  # RFC 5321, 4.5.3.1.1; in UTF-8 by RFC 6531
_NO_ADDRESS = "this is not an e-mail address; write one like ada@example.org"
_ENCODED_WORD = "=?"
"""The beginning of an encoded word (RFC 2047), which readers of headers decode. An address may contain it."""
# Only the relay knows whether mail reaches a domain: companies have mail under names like corp.local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

# In addition to invisible characters: private characters, and those that this version of Unicode doesn't have, so
# that another version of Python or Postgres never finds another canonical form.
_UNSEEN_CATEGORIES = frozenset({"Co", "Cn"})
# Texts may contain variation selectors, because emoji need them. Addresses have no use for them.
_VARIATION_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


def canonical_email(text: str) -> str:
    """The only form in which an address is stored, compared, limited and written to, on the envelope and in the header:
    without surrounding blanks, the name in Unicode's composed form (NFC) in lower case, and the domain in ASCII (IDNA)
    in lower case.

    Two spellings that differ in case are one person, because every large provider treats them so, and two accounts for
    one mailbox are worse than the theoretical loss. The same holds for two that look identical and differ only in
    bytes. Raises Refusal `invalid_value` for a text that isn't an address in the strict form (RFC 5321 without quotes,
    comments and literal domains) or could be read as another one, and for invisible characters.
    """
    address = text.strip()
    if any(map(_unseen, address)):
        raise _refused(
            "the address holds a character that can't be seen (a control, zero-width or direction mark); "
            "type it instead of pasting it"
        )
    # Converting to lower case can decompose a letter again.
    address = _strict(_composed(_composed(address).lower()))
    name = address.partition("@")[0]
    if len(address.encode()) > MAX_EMAIL_BYTES or len(name.encode()) > MAX_NAME_BYTES or _ENCODED_WORD in name:
        raise _refused(_NO_ADDRESS)
    return address


def sender_address(text: str) -> Address:
    """A sender's address, with or without a name before it. Raises ValueError for anything else."""
    parsed = validate_email(
        text,
        check_deliverability=False,
        globally_deliverable=False,
        allow_smtputf8=False,
        allow_quoted_local=False,
        allow_domain_literal=False,
        allow_display_name=True,
    )
    return Address(parsed.display_name or "", parsed.local_part, parsed.ascii_domain)


def _strict(text: str) -> str:
    try:
        parsed = validate_email(
            text,
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
        )
    except EmailNotValidError:
        raise _refused(_NO_ADDRESS) from None
    return f"{_composed(parsed.local_part.lower())}@{parsed.ascii_domain}"


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
