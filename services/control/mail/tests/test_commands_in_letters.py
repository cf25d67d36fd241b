"""The commands that people copy from letters do what the letter says, whatever the address is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from services.control.invitations.domain.letter import invitation_letter
from services.control.mail.domain.address import canonical_email
from services.control.mail.domain.letters import Kind, Letter, Mail
from services.control.notices.domain import key_letter, new_device_letter

ADDRESSES = ["ada@example.org", "bob+`echo${IFS}evil|cat`@example.org", "o'$HOME|{x}&*?#~!@example.org"]
PRINTS = "oa() { printf '%s\\n' \"$@\"; }\n"
"""A shell function in the place of `oa`, which prints each of its arguments on a line."""


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("letter", [invitation_letter, new_device_letter, key_letter])
def test_a_shell_takes_the_address_as_one_word(letter: Callable[[Mail], Letter], address: str) -> None:
    address = canonical_email(address)
    mail = Mail("mal_1", Kind.INVITATION, address, "inv_1", datetime(2026, 1, 1, tzinfo=UTC))
    (line,) = [line for line in letter(mail).text.splitlines() if "--email" in line]
    shell = subprocess.run(["sh", "-c", PRINTS + line], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == ["login", "--email", address]
