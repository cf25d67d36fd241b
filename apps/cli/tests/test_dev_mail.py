"""The development mailbox, as `oa login --dev` reads it."""

from __future__ import annotations

from pathlib import Path

from apps.cli.commands.identity.account import dev_code

MAIL = b'{"email": "a@b.example", "code": "%s"}\n'


async def test_a_mail_that_a_full_disk_cut_off_hides_no_other(tmp_path: Path) -> None:
    mailbox = tmp_path / "dev-mail.jsonl"
    mailbox.write_bytes(MAIL % b"111111" + b'{"email": "a@b.example", "co\n' + b"\xc3\n\n" + MAIL % b"222222")
    assert await dev_code(mailbox, "a@b.example") == "222222"
    mailbox.write_bytes(mailbox.read_bytes() + MAIL[:20])
    assert await dev_code(mailbox, "a@b.example", 1) == "222222"
