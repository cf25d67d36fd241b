"""One mailbox, one spelling, one account: the canonical form of addresses, at the door, in the tables, and in those of
before."""

from __future__ import annotations

import shutil
import unicodedata
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_platform.postgres.migrate import migrate
from oa_testing.postgres import Database
from services.control.mail.domain.address import canonical_email
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import Control, field_of, new_id, reason_of

NFC, NFD = "rené@example.org", "rene\u0301@example.org"
MIGRATIONS = Path(__file__).parents[2] / "migrations"
UNSEEN = (
    "\u200b\u200c\u200d\u2060\ufeff\u202a\u202e\u2066\u2069\u200e\u061c\u00ad\u034f\u3164\ufe0f\U000e0041\x07\x7f\x85"
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("ada@example.org ", "ada@example.org"),
        ("\u00a0ada@example.org\u3000\n", "ada@example.org"),
        ("a+b@localhost", "a+b@localhost"),
        ("ü@example.org", "ü@example.org"),
        (NFD, NFC),
        (NFD.upper(), NFC),
        ("\u0130a@example.org", "i\u0307a@example.org"),
        ("\u212bsa@example.org", "åsa@example.org"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@corp.local", "ada@corp.local"),
    ],
)
def test_one_mailbox_has_one_spelling(text: str, address: str) -> None:
    assert canonical_email(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "ada", "@example.org", "ada@", "a b@example.org", "a@b@c", "a@-x.org", "a@x..org", "a@x.org\r\nBcc: b@y.org",
     "a\n@x.org", "<a@x.org>", "a@x.org,b@y.org", "x" * 250 + "@example.org", "a@example.org\x00", "a\ud800@x.org",
     "a\u0378@x.org", "mallory[x]@corp.example", "x0:bob@e.org", "=?utf-8?q?bob=40evil.test?=@e.org",
     "=?utf-8?q?a=0d=0aBcc:x?=@e.org", '"a b"@x.org', "a.@x.org", "a@[192.0.2.1]", "Ada <a@x.org>", "a@xn--a.org",
     "(c)a@x.org", "a@x_y.org", "ü" * 33 + "@example.org"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_field(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        canonical_email(text)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "email")


@pytest.mark.parametrize("character", UNSEEN, ids=lambda character: f"U+{ord(character):04X}")
@pytest.mark.parametrize("where", ["{}ada@example.org", "a{}da@example.org", "ada{}@example.org", "ada@exa{}mple.org"])
def test_what_nobody_sees_is_refused(character: str, where: str) -> None:
    if where.startswith("{}") and character.isspace():
        return  # a blank around the address is no part of it
    with pytest.raises(Refusal, match="can't be seen") as refused:
        canonical_email(where.format(character))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "email")
    assert character not in refused.value.message


def test_of_all_characters_none_that_is_taken_is_ignorable_or_changes_again() -> None:
    # All but ideographs and Hangul syllables, which are many and alike.
    for code in chain(range(0x3400), range(0xA000, 0xAC00), range(0xD7B0, 0x18000), range(0xE0000, 0xE0200)):
        try:
            address = canonical_email(f"a{chr(code)}b@example.org")
        except Refusal:
            continue
        assert canonical_email(address) == address, hex(code)
        assert unicodedata.is_normalized("NFC", address)
        assert unicodedata.category(chr(code))[0] not in "CZ", hex(code)


@given(st.text(max_size=12))
def test_all_forms_of_a_text_are_one_address(local: str) -> None:
    found = set()
    for form in ("NFC", "NFD"):
        try:
            found.add(canonical_email(f" {unicodedata.normalize(form, local)}@example.org"))
        except Refusal as refusal:
            found.add(refusal.reason)
    # A form that is longer may be too long in parts: what counts is the form that is kept.
    assert len(found) == 1


# ------------------------------------------------------------------------------------------------- at the door


async def test_both_forms_of_a_name_are_one_account(control: Control) -> None:
    first, ids = "", set()
    for email in (NFC, NFD, f"  {NFD.upper()} "):
        device = new_id("dev")
        started = await control.ok("control.AuthService/StartChallenge", {"email": email, "deviceId": device})
        assert started["email"] == NFC
        mail = await control.mail_of(started["challengeId"])
        assert mail["email"] == NFC, "the code goes to the address that is kept"
        guess = {"challengeId": started["challengeId"], "code": mail["code"], "deviceId": device}
        signed_in = await control.ok("control.AuthService/VerifyChallenge", guess)
        assert signed_in.get("newUser", False) == (first == "")
        first = signed_in["tokens"]["accessToken"]
        ids.add(signed_in["userId"])
    assert len(ids) == 1
    assert (await control.ok("control.SessionService/GetCaller", {}, first))["email"] == NFC


@pytest.mark.parametrize("email", ["ada\u200b@example.org", "ada\u202e@example.org", "ada\x07@example.org"])
async def test_the_door_names_the_field_and_what_to_do(control: Control, email: str) -> None:
    response = await control.call("control.AuthService/StartChallenge", {"email": email, "deviceId": new_id("dev")})
    assert (response.status_code, reason_of(response), field_of(response)) == (400, "invalid_value", "email")
    assert "can't be seen" in response.json()["message"]


async def test_codes_and_limits_count_for_the_canonical_address(cases: Cases) -> None:
    device = new_id("dev")
    await cases.sign_in.start(NFC, device, ORIGIN)
    with pytest.raises(Refusal, match="rate_limited"):
        await cases.sign_in.start(NFD, device, ORIGIN)


# ------------------------------------------------------------------------------------------------- in the tables

INSERT_USER = "INSERT INTO control.users (user_id, email, created_at) VALUES ($1, $2, '2026-01-01Z'::timestamptz + $3)"


async def test_the_tables_take_no_other_form(control_database: Database) -> None:
    connection = await asyncpg.connect(control_database.control)
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO control.users VALUES ('usr_1', $1, now())", NFD)
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO control.challenges VALUES ('chl_1', $1, 'dev_1', '', now(), 0, NULL)", NFD
            )
    finally:
        await connection.close()


def _first_two(directory: Path) -> Path:
    directory.mkdir()
    for name in ("0001_control.sql", "0002_used_counter.sql"):
        shutil.copy(MIGRATIONS / name, directory)
    return directory


async def _before(database: Database, directory: Path) -> Any:
    """A database as it was before addresses were canonical."""
    await migrate(database.owner, "control", _first_two(directory))
    return await asyncpg.connect(database.admin)


async def test_accounts_of_before_get_their_canonical_address(empty_database: Database, tmp_path: Path) -> None:
    admin = await _before(empty_database, tmp_path / "before")
    try:
        for number, (user, email) in enumerate(
            [("usr_a", "ada@example.org"), ("usr_d", NFD), ("usr_c", NFC), ("usr_z", "zoe\u0308@example.org"),
             ("usr_u", "u\u200b@example.org")]
        ):  # fmt: skip
            await admin.execute(INSERT_USER, user, email, timedelta(hours=number))
            await admin.execute("INSERT INTO control.orgs VALUES ($1, 'x', $2, now())", f"org_{user[-1]}", user)
        await admin.execute("INSERT INTO control.challenges VALUES ('chl_1', $1, 'd', '', now(), 0, NULL)", NFD)
        await admin.execute("INSERT INTO control.challenges VALUES ('chl_2', $1, 'd', '', now(), 0, NULL)", NFC)
        await migrate(empty_database.owner, "control", MIGRATIONS)
        rows = await admin.fetch("SELECT user_id, email FROM control.users ORDER BY created_at")
        assert [tuple(row) for row in rows] == [
            ("usr_a", "ada@example.org"),
            ("usr_d", NFC),
            ("usr_c", "set-aside:usr_c"),
            ("usr_z", "zoë@example.org"),
            ("usr_u", "u\u200b@example.org"),
        ]
        audit = await admin.fetch("SELECT action, reason, actor, org_id, target FROM control.audit_events")
        assert [tuple(row) for row in audit] == [("user.set_aside", "same_address", "migration", "org_c", "usr_c")]
        challenges = await admin.fetch("SELECT challenge_id, ended FROM control.challenges ORDER BY challenge_id")
        assert [tuple(row) for row in challenges] == [("chl_1", "replaced"), ("chl_2", None)]
        with pytest.raises(Refusal):
            canonical_email("set-aside:usr_c")
    finally:
        await admin.close()
