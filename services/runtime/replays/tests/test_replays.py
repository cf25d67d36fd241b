"""Replay artifacts over real gRPC: whole, the same from every replica, and proof against every change."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from oa_base.identity import Principal
from oa_base.refusal import Refusal
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.signing import ReceiptSigner
from oa_runlog.proof.verify import verify_artifact
from oa_runlog.tests.records import KEYS, MALLORY, Record, record, text
from oa_testing.postgres import Database
from openagents.runtime.v1 import replay_service_pb2 as pb
from services.runtime.archive.app.artifacts import Artifacts
from services.runtime.archive.app.spool import Spool
from services.runtime.archive.limits import ArtifactLimits
from services.runtime.archive_settings import ArtifactSettings
from services.runtime.config import ReplaySettings
from services.runtime.replays.app import Replays
from services.runtime.replays.limits import ReplayLimits
from services.runtime.tests.fetching import fetched, keys_of
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.rig import (
    Somebody,
    refusal_of_call,
    replica,
    runtime_settings,
    somebody,
)

SMALL = ReplaySettings(page_bytes=100)


async def test_an_artifact_is_read_in_pieces_and_is_the_same_from_every_replica(runtime_database: Database) -> None:
    who = somebody()
    settings = runtime_settings(runtime_database, replay=SMALL)
    async with replica(settings, who.key) as one, replica(settings, who.key) as other:
        (run_id,) = await finished_runs(one, who, b"some output")
        data = await fetched(one, who, run_id)
        assert await fetched(other, who, run_id) == data
        replayed = verify_artifact(data.splitlines(keepends=True), await keys_of(one, who), run_id=run_id)
        assert (replayed.facts.count, replayed.facts.totals.text_bytes) == (5, 22)


async def test_what_can_not_be_read_says_why(runtime_database: Database) -> None:
    who = somebody()
    stranger = Somebody(who.key)
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        (run_id,) = await finished_runs(runtime, who, b"x")
        running = await runtime.create(who, "running")

        async def refused(asker: Somebody, run: str, offset: int = 0) -> tuple[str, str]:
            request = pb.ReadReplayArtifactRequest(run_id=run, offset=offset)
            refusal = await refusal_of_call(runtime.replays.ReadReplayArtifact(request, metadata=asker.as_person()))
            return refusal.reason, refusal.field

        assert (await refused(stranger, run_id))[0] == "not_found"
        assert (await refused(who, running.run_id))[0] == "run_not_finished"
        assert await refused(who, run_id, 1 << 40) == ("invalid_value", "offset")
        assert await refused(who, run_id, 2**64 - 1) == ("invalid_value", "offset")
        assert await refused(who, "run_x") == ("invalid_value", "run_id")


async def test_an_artifact_past_the_largest_size_is_refused(runtime_database: Database) -> None:
    who = somebody()
    settings = runtime_settings(runtime_database, artifacts=ArtifactSettings(max_bytes=1024))
    async with replica(settings, who.key) as runtime:
        (run_id,) = await finished_runs(runtime, who, b"x" * 2000)
        request = pb.ReadReplayArtifactRequest(run_id=run_id)
        refusal = await refusal_of_call(runtime.replays.ReadReplayArtifact(request, metadata=who.as_person()))
        assert refusal.reason == "limit_reached"


# ----------------------------------------------------------------------------------------------- what is made, and kept


class NoArchive:
    """No run was ever archived."""

    async def fetch(self, run_id: str) -> Spool | None:
        return None


class OneRun:
    """A log, and the runs of it, that hold one record; counts how often it is read."""

    def __init__(self, one: Record) -> None:
        self._record = one
        self.reads = 0

    async def run_page(self, run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        self.reads += after_seq == 0
        await asyncio.sleep(0)
        events = list(enumerate(self._record.events, start=1))
        return events[after_seq : after_seq + 2]

    async def receipt(self, principal: Principal, run_id: str) -> SignedReceipt:
        return SignedReceipt(
            run_id, self._record.receipt.canonical_json, self._record.receipt.signature, self._record.receipt.key_id
        )


def replays_of(log: Any, limits: ReplayLimits, making: ArtifactLimits | None = None) -> Replays:
    return Replays(log, Artifacts(log, NoArchive(), making or ArtifactLimits()), limits)


ANYBODY: Any = None


async def test_who_asks_at_once_shares_one_artifact_and_reading_on_makes_no_other() -> None:
    one = record([text(b"a"), text(b"b")])
    log = OneRun(one)
    replays = replays_of(log, ReplayLimits(page_bytes=64))
    pieces = await asyncio.gather(*(replays.read(ANYBODY, one.run_id, 0) for _ in range(5)))
    assert len(set(pieces)) == 1
    await replays.read(ANYBODY, one.run_id, 64)
    assert log.reads == 1


async def test_artifacts_past_the_kept_bytes_are_made_again() -> None:
    one = record([text(b"a")])
    log = OneRun(one)
    whole = (await replays_of(log, ReplayLimits()).read(ANYBODY, one.run_id, 0)).total_bytes
    for cache_bytes, made in ((2 * whole, 2), (whole, 3)):
        log.reads = 0
        replays = replays_of(log, ReplayLimits(cache_bytes=cache_bytes))
        for run_id in (one.run_id, one.run_id[:-1] + "Z", one.run_id):
            await replays.read(ANYBODY, run_id, 0)
        assert log.reads == made


async def test_a_limited_number_of_artifacts_is_kept() -> None:
    one = record([text(b"a")])
    log = OneRun(one)
    replays = replays_of(log, ReplayLimits(cache_artifacts=2))
    for letter, made in (("X", 1), ("Y", 2), ("Z", 3), ("Y", 3), ("X", 4)):
        await replays.read(ANYBODY, f"{one.run_id[:-1]}{letter}", 0)
        assert log.reads == made, letter


async def test_a_run_that_ended_anew_after_events_were_lost_has_another_artifact() -> None:
    one, other = record([text(b"a")]), record([text(b"b")])
    log = OneRun(one)
    replays = replays_of(log, ReplayLimits())
    before = await replays.read(ANYBODY, one.run_id, 0)
    log._record = other
    after = await replays.read(ANYBODY, one.run_id, 0)
    assert (before.sha256 != after.sha256, log.reads) == (True, 2)


async def test_no_more_artifacts_are_made_at_a_time_than_allowed() -> None:
    one = record([text(b"a")])
    log = OneRun(one)
    going = most = 0

    async def slow(run_id: str, after_seq: int, max_events: int, max_bytes: int) -> list[tuple[int, bytes]]:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.01)
        going -= 1
        return []

    log.run_page = slow  # type: ignore[method-assign]
    replays = replays_of(log, ReplayLimits(), ArtifactLimits(builds=2))
    runs = [f"{one.run_id[:-1]}{letter}" for letter in "ABCDEFG"]
    answers = await asyncio.gather(*(replays.read(ANYBODY, run, 0) for run in runs), return_exceptions=True)
    assert [answer.reason for answer in answers if isinstance(answer, Refusal)] == ["archive_damaged"] * len(runs)
    assert most == 2


# ----------------------------------------------------------------------------------------------- tampering

Lines = list[bytes]


def _changed(line: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    members = json.loads(line)
    change(members)
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _flip(members: dict[str, Any]) -> None:
    data = bytearray(base64.b64decode(members["event"]))
    data[-1] ^= 1
    members["event"] = base64.b64encode(data).decode()


def _with_receipt(lines: Lines, receipt: SignedReceipt) -> Lines:
    def change(members: dict[str, Any]) -> None:
        members["receipt"] = {
            "canonical_json": receipt.canonical_json.decode(),
            "signature": base64.b64encode(receipt.signature).decode(),
            "key_id": receipt.key_id,
        }

    return [*lines[:-1], _changed(lines[-1], change)]


def _receipt_in(lines: Lines) -> SignedReceipt:
    members = json.loads(lines[-1])["receipt"]
    text = str(members["canonical_json"])
    return SignedReceipt(
        json.loads(text)["run_id"], text.encode(), base64.b64decode(members["signature"]), members["key_id"]
    )


def _resigned(receipt: SignedReceipt, signer: ReceiptSigner, key_id: str) -> SignedReceipt:
    """Signed by another key, under the name `key_id`."""
    signature = signer._key.sign(receipt.canonical_json)
    return SignedReceipt(receipt.run_id, receipt.canonical_json, signature, key_id)


def tampered(lines: Lines, foreign: SignedReceipt) -> dict[str, tuple[Lines, str]]:
    """What was done to an artifact -> the result, and the reason that it must be refused with."""
    receipt = _receipt_in(lines)
    return {
        "changed byte": ([*lines[:3], _changed(lines[3], _flip), *lines[4:]], "chain_mismatch"),
        "dropped event": ([*lines[:3], *lines[4:]], "event_missing"),
        "doubled event": ([*lines[:3], lines[2], *lines[3:]], "event_doubled"),
        "swapped events": ([*lines[:2], lines[3], lines[2], *lines[4:]], "event_misplaced"),
        "cut tail": (lines[:-1], "tail_cut"),
        "cut within a line": ([*lines[:-1], lines[-1][:40]], "tail_cut"),
        "foreign receipt": (_with_receipt(lines, foreign), "receipt_foreign"),
        "foreign key": (_with_receipt(lines, _resigned(receipt, MALLORY, MALLORY.key_id)), "unknown_key"),
        "re-signed receipt": (
            _with_receipt(lines, _resigned(receipt, MALLORY, receipt.key_id)),
            "signature_invalid",
        ),
    }


async def test_every_way_of_tampering_with_a_served_artifact_has_its_own_reason(runtime_database: Database) -> None:
    who = somebody()
    async with replica(runtime_settings(runtime_database), who.key) as runtime:
        run_id, other = await finished_runs(runtime, who, b"some output", b"another run")
        lines = (await fetched(runtime, who, run_id)).splitlines(keepends=True)
        foreign = _receipt_in((await fetched(runtime, who, other)).splitlines(keepends=True))
        keys = await keys_of(runtime, who)
    assert verify_artifact(lines, keys, run_id=run_id).facts.run_id == run_id
    for what, (result, reason) in tampered(lines, foreign).items():
        with pytest.raises(Refusal) as caught:
            verify_artifact(result, keys, run_id=run_id)
        assert caught.value.reason == reason, what
    with pytest.raises(Refusal) as caught:
        verify_artifact(lines, KEYS, run_id=run_id)
    assert caught.value.reason == "unknown_key"
