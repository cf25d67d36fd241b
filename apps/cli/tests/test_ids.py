"""Which one is meant, whatever has ids."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from apps.cli.following.ids import Kind, Listed, meant
from oa_base.refusal import Refusal

ACCOUNT = Kind("service account", "account", "oa key list", ("sva_",), named=True)
EITHER = Kind("key or service account", "key", "oa key list", ("apk_", "sva_"), named=True)
SCHEDULE = Kind("schedule", "schedule", "oa schedule list", ("sch_",))
REQUEST = Kind("request", "request_id", "oa request list")
TAILS = ("0AA", "0AB", "0B0")
KEYS, ACCOUNTS, TIMED = ([f"{kind}_01JD8V00000000000000000{tail}" for tail in TAILS] for kind in ("apk", "sva", "sch"))
ALL_ACCOUNTS = [Listed(each, name) for each, name in zip(ACCOUNTS, ("ci", "ci", "dev"), strict=True)]
ALL = [*map(Listed, KEYS), *ALL_ACCOUNTS]
SCHEDULES = [Listed(TIMED[2], "weekly"), Listed(TIMED[0], "ab"), Listed(TIMED[1], "nightly")]
REQUESTS = [Listed(f"r{number}") for number in (1, 2, 11, 10)]


async def meaning(kind: Kind, text: str, listed: Sequence[Listed]) -> str:
    async def asked() -> Sequence[Listed]:
        return listed

    return await meant(kind, text, asked)


@pytest.mark.parametrize(
    ("kind", "text", "listed", "found"),
    [
        (ACCOUNT, ACCOUNTS[2][:-1], ALL_ACCOUNTS, ACCOUNTS[2]),
        (ACCOUNT, ACCOUNTS[2][4:-1].lower(), ALL_ACCOUNTS, ACCOUNTS[2]),
        (ACCOUNT, "dev", ALL_ACCOUNTS, ACCOUNTS[2]),
        (ACCOUNT, "latest", ALL_ACCOUNTS, ACCOUNTS[2]),
        (EITHER, "latest", ALL, KEYS[2]),
        (EITHER, KEYS[2][:-1], ALL, KEYS[2]),
        (EITHER, ACCOUNTS[2][:-1], ALL, ACCOUNTS[2]),
        (EITHER, "dev", ALL, ACCOUNTS[2]),
        (SCHEDULE, "latest", SCHEDULES, TIMED[2]),
        (
            SCHEDULE,
            "latest",
            [*SCHEDULES, Listed("sch_00JD8V00000000000000000000", "latest")],
            "sch_00JD8V00000000000000000000",
        ),
        (SCHEDULE, "ab", SCHEDULES, TIMED[0]),
        (REQUEST, "r1", REQUESTS, "r1"),
        (REQUEST, "r2", REQUESTS, "r2"),
        (REQUEST, "latest", REQUESTS, "r10"),
    ],
)
async def test_a_text_means_the_thing_that_it_names(
    kind: Kind, text: str, listed: Sequence[Listed], found: str
) -> None:
    assert await meaning(kind, text, listed) == found


@pytest.mark.parametrize(
    ("kind", "text"), [(SCHEDULE, TIMED[0]), (EITHER, KEYS[0]), (SCHEDULE, "nightly"), (REQUEST, "\x1b[2J")]
)
async def test_a_whole_id_and_what_is_none_ask_for_nothing(kind: Kind, text: str) -> None:
    async def asked() -> Sequence[Listed]:
        raise AssertionError("asked")

    assert await meant(kind, text, asked) == text


@pytest.mark.parametrize(
    ("kind", "text", "listed", "reason", "candidates"),
    [
        (ACCOUNT, "ci", ALL_ACCOUNTS, "invalid_value", ACCOUNTS[:2]),
        (ACCOUNT, ACCOUNTS[0][:-1], ALL_ACCOUNTS, "invalid_value", ACCOUNTS[:2]),
        (EITHER, KEYS[2][4:-1], ALL, "invalid_value", [KEYS[2], ACCOUNTS[2]]),
        (REQUEST, "r", REQUESTS, "invalid_value", ["r1", "r2", "r11", "r10"]),
        (ACCOUNT, "nobody", ALL_ACCOUNTS, "not_found", []),
        (ACCOUNT, "latest", [], "not_found", []),
        (EITHER, "latest", ALL_ACCOUNTS, "not_found", []),
        (SCHEDULE, "sch_02", SCHEDULES, "not_found", []),
        (REQUEST, "latest", [], "not_found", []),
    ],
)
async def test_what_means_none_or_several(
    kind: Kind, text: str, listed: Sequence[Listed], reason: str, candidates: list[str]
) -> None:
    with pytest.raises(Refusal) as refused:
        await meaning(kind, text, listed)
    assert (refused.value.reason, refused.value.field) == (reason, kind.field)
    assert refused.value.metadata.get("candidates", "").split() == candidates
    assert all(each in refused.value.message for each in candidates)
    assert not candidates or refused.value.metadata["count"] == str(len(candidates))


async def test_of_many_only_some_are_shown_to_people() -> None:
    many = [Listed(f"sch_01JD8V0000000000000000000{tail}") for tail in "ABCDEFG"]
    with pytest.raises(Refusal) as refused:
        await meaning(SCHEDULE, "01JD", many)
    assert "7 schedules begin so: " in refused.value.message
    assert refused.value.message.count("sch_") == 5
    assert len(refused.value.metadata["candidates"].split()) == 7
