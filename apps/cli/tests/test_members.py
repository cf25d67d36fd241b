"""Who is meant by the address or id that a person types."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from apps.cli.commands.orgs import members
from oa_base.refusal import Refusal
from oa_client.core.orgs import Member

STRASSE, STREET, RENE, BOB, EVE, ADA = (f"usr_01JD8V0000000000000000000{letter}" for letter in "ABCDEF")
ADDRESSES = {
    STREET: "stra\u00dfe@example.org",
    STRASSE: "strasse@example.org",
    RENE: "ren\u00e9@example.org",
    BOB: "bob@xn--exmple-jua.org",
    EVE: "eve@strasse.org",
    ADA: "ada@xn--strae-oqa.example",
}


@pytest.fixture(autouse=True)
def people(monkeypatch: pytest.MonkeyPatch) -> None:
    async def every_member(_client: Any, _org_id: str) -> list[Member]:
        return [Member(user_id, email, "member", "", {}) for user_id, email in ADDRESSES.items()]

    monkeypatch.setattr(members, "every_member", every_member)


async def meant(person: str) -> str:
    client: Any = None
    return await members.user_id_of(client, "org_1", person)


@pytest.mark.parametrize(
    ("typed", "user_id"),
    [
        ("strasse@example.org", STRASSE),
        ("stra\u00dfe@example.org", STREET),
        (" Strasse@Example.ORG ", STRASSE),
        (unicodedata.normalize("NFD", "Ren\u00e9@example.org"), RENE),
        ("bob@ex\u00e5mple.org", BOB),
        ("BOB@XN--EXMPLE-JUA.org", BOB),
        ("ada@stra\u00dfe.example", ADA),
        (BOB, BOB),
    ],
)
async def test_an_address_is_that_of_one_person_however_it_is_typed(typed: str, user_id: str) -> None:
    assert await meant(typed) == user_id


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("bob@example.org", "not_found"),
        ("bob@", "not_found"),
        ("eve@stra\u00dfe.org", "not_found"),
        ("ada@strasse.example", "not_found"),
        (f"bob@{'x' * 64}.org", "not_found"),
        ("bob", "invalid_value"),
        ("usr_1", "invalid_value"),
        ("", "invalid_value"),
    ],
)
async def test_nobody_is_meant_by_anything_else(typed: str, reason: str) -> None:
    with pytest.raises(Refusal, match="look with `oa member list`") as refused:
        await meant(typed)
    assert (refused.value.reason, refused.value.field) == (reason, "person")
