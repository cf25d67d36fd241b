"""The audit log of a site, fetched in parts and held against the head that was kept."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_client.core.audit import AuditPart
from oa_client.cpython.site import FileAuditHeads
from oa_client.proofs.audit_log import checked_audit_log, fetch_audit_log, verify_audit_file
from oa_runlog.canonical import canonical_json
from oa_runlog.proof.audit import AuditHead, audit_start

ORG = "org_a"


class Site:
    """A site with a log. `dropped` of its oldest events are gone; `given` at a time."""

    def __init__(self, actors: list[str], *, dropped: int = 0, given: int = 2) -> None:
        self.heads = [audit_start(ORG)]
        self.events: list[tuple[bytes, bytes]] = []
        self.dropped, self.given, self.org_id = dropped, given, ORG
        for actor in actors:
            self.add(actor)

    def add(self, actor: str) -> None:
        """One more event."""
        texts = dict.fromkeys(("time", "action", "reason", "target", "network", "request_id"), "")
        event = canonical_json({**texts, "sequence": len(self.heads), "org_id": ORG, "actor": actor})
        self.heads.append(self.heads[-1].after(event))
        self.events.append((event, self.heads[-1].chain))

    async def part(self, after_sequence: int) -> AuditPart:
        """See AuditParts."""
        start = max(after_sequence, self.dropped)
        events = tuple(self.events[start : start + self.given])
        return AuditPart(self.org_id, self.heads[start], events, self.heads[-1])


async def reason_of(site: Site, heads: FileAuditHeads) -> str:
    with pytest.raises(Refusal) as refused:
        await checked_audit_log(site, heads, io.BytesIO())
    return refused.value.reason


@pytest.mark.parametrize("number", range(6))
async def test_a_log_is_fetched_whole(number: int, tmp_path: Path) -> None:
    site = Site(["x"] * number)
    file = io.BytesIO()
    verified = await checked_audit_log(site, FileAuditHeads(tmp_path), file)
    assert (verified.count, verified.head) == (number, site.heads[-1])
    assert verify_audit_file(file, verified.head) == verified.__class__(
        ORG, site.heads[0], site.heads[-1], known_compared=True
    )


async def test_the_next_log_continues_the_one_before(tmp_path: Path) -> None:
    heads = FileAuditHeads(tmp_path)
    site = Site(["a", "b", "c"])
    await checked_audit_log(site, heads, io.BytesIO())
    assert heads.load() == {ORG: site.heads[-1]}
    site.add("d")
    await checked_audit_log(site, heads, io.BytesIO())
    assert await reason_of(Site(["a", "b", "c"]), heads) == "log_rolled_back"
    assert await reason_of(Site(["a", "x", "c", "d", "e"]), heads) == "log_forked"
    assert heads.load() == {ORG: site.heads[-1]}, "what failed is not kept"


async def test_what_was_dropped_before_the_first_part_is_no_fault(tmp_path: Path) -> None:
    heads = FileAuditHeads(tmp_path)
    site = Site(["a", "b", "c"], dropped=2)
    verified = await checked_audit_log(site, heads, io.BytesIO(), audit_start(ORG))
    assert (verified.start, verified.count, verified.known_compared) == (site.heads[2], 1, False)


async def test_what_is_dropped_between_two_parts_is_told(tmp_path: Path) -> None:
    site = Site(["a", "b", "c", "d", "e"])

    class Dropping(Site):
        async def part(self, after_sequence: int) -> AuditPart:
            site.dropped = 0 if after_sequence == 0 else 4
            return await site.part(after_sequence)

    assert await reason_of(Dropping([]), FileAuditHeads(tmp_path)) == "artifact_malformed"


async def test_a_site_that_gives_less_than_it_says_is_found(tmp_path: Path) -> None:
    site = Site(["a", "b", "c"])
    del site.events[2:]
    assert await reason_of(site, FileAuditHeads(tmp_path)) == "tail_cut"


async def test_a_fetch_ends_where_the_log_was_when_it_began() -> None:
    class Growing(Site):
        async def part(self, after_sequence: int) -> AuditPart:
            given = await super().part(after_sequence)
            for _ in range(self.given):
                self.add("more")
            return given

    file = io.BytesIO()
    await fetch_audit_log(Growing(["a", "b", "c"]), file)
    assert verify_audit_file(file).count == 4


@pytest.mark.parametrize("content", ["", "[]", '{"org_a": "1"}', '{"org_a": 1}'])
def test_kept_heads_that_make_no_sense_are_not_taken_for_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "audit-heads.json").write_text(content)
    with pytest.raises(Refusal) as refused:
        FileAuditHeads(tmp_path).load()
    assert refused.value.reason == "checkpoint_malformed"


async def test_heads_of_several_orgs_are_kept(tmp_path: Path) -> None:
    heads = FileAuditHeads(tmp_path)
    assert heads.load() == {}
    for org_id, sequence in ((ORG, 1), ("org_b", 2), (ORG, 3), (ORG, 2)):
        await heads.keep(org_id, AuditHead(sequence, bytes(32)), heads.load().get(org_id))
    assert heads.load() == {ORG: AuditHead(3, bytes(32)), "org_b": AuditHead(2, bytes(32))}


async def test_several_who_keep_heads_at_once_lose_none(tmp_path: Path) -> None:
    def keep(number: int) -> None:
        async def in_turn() -> None:
            for one in range(8):
                await FileAuditHeads(tmp_path).keep(f"org_{number}_{one}", AuditHead(1, bytes(32)), None)

        asyncio.run(in_turn())

    await asyncio.gather(*(asyncio.to_thread(keep, number) for number in range(4)))
    assert len(FileAuditHeads(tmp_path).load()) == 32


class Overtaken(Site):
    """While its log is fetched, somebody else checks a longer one."""

    def __init__(self, longer: Site, heads: FileAuditHeads) -> None:
        super().__init__(["a", "b"])
        self.longer, self.others_heads = longer, heads

    async def part(self, after_sequence: int) -> AuditPart:
        """See AuditParts."""
        if after_sequence == 0:
            await checked_audit_log(self.longer, self.others_heads, io.BytesIO())
        return await super().part(after_sequence)


async def test_a_longer_log_that_was_checked_meanwhile_is_no_rollback(tmp_path: Path) -> None:
    heads, longer = FileAuditHeads(tmp_path), Site(["a", "b", "c"])
    verified = await checked_audit_log(Overtaken(longer, FileAuditHeads(tmp_path)), heads, io.BytesIO())
    assert verified.head == longer.heads[2]
    assert heads.load() == {ORG: longer.heads[3]}, "the newer one stays"


async def test_another_log_that_was_checked_meanwhile_is_told(tmp_path: Path) -> None:
    heads = FileAuditHeads(tmp_path)
    assert await reason_of(Overtaken(Site(["a", "x"]), FileAuditHeads(tmp_path)), heads) == "log_forked"


async def test_another_log_that_was_checked_at_the_last_moment_is_told(tmp_path: Path) -> None:
    class LastMoment(FileAuditHeads):
        """Before its own head is kept, somebody else keeps one."""

        async def keep(self, org_id: str, head: AuditHead, compared: AuditHead | None) -> AuditHead | None:
            await checked_audit_log(Site(["a", "x"]), FileAuditHeads(tmp_path), io.BytesIO())
            return await super().keep(org_id, head, compared)

    assert await reason_of(Site(["a", "b", "c"]), LastMoment(tmp_path)) == "log_forked"
    assert FileAuditHeads(tmp_path).load() == {ORG: Site(["a", "x"]).heads[2]}, "what failed is not kept"
