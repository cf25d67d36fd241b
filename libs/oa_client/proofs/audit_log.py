"""The audit log of an org, fetched whole and checked, also against the newest head that was seen before.

A chain can't show whether it was made anew. Therefore the newest verified head is kept, and the next log must continue
it (docs/operations/audit.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO, Protocol

from oa_base.refusal import Refusal
from oa_client.core.audit import AuditPart
from oa_runlog.proof.audit import (
    MAX_LINE_BYTES,
    AuditHead,
    VerifiedAuditLog,
    audit_event_line,
    audit_first_line,
    verify_audit_log,
)


class AuditParts(Protocol):
    """A source of the log: `oa_client.edge.audit.Audit`."""

    async def part(self, after_sequence: int) -> AuditPart:
        """Return the chain after an event."""


class AuditHeads(Protocol):
    """Keeps the newest verified head of each org of one site."""

    def load(self) -> Mapping[str, AuditHead]:
        """Return the head of each org."""

    async def keep(self, org_id: str, head: AuditHead, compared: AuditHead | None) -> AuditHead | None:
        """Keep the head, unless a newer one of the org is kept. Other processes may do the same at any time: if another
        head is kept than the one that it was compared with, keep nothing, and return that one."""


async def fetch_audit_log(parts: AuditParts, into: BinaryIO) -> None:
    """Write the log of the caller's org, as far as it goes now, into an empty file.

    Raises Refusal `tail_cut` if the site has fewer events than it says, `artifact_malformed` if its parts don't fit.
    """
    part = await parts.part(0)
    org_id, end = part.org_id, part.head
    reached = part.start.sequence
    into.write(audit_first_line(org_id, part.start))
    while True:
        for event, chain in part.events:
            into.write(audit_event_line(event, chain))
        reached += len(part.events)
        if reached >= end.sequence:
            return
        if not part.events:
            message = f"the site says that the log has {end.sequence} events, and gives {reached}; tell its operators"
            raise Refusal("tail_cut", message)
        part = await parts.part(reached)
        if (part.org_id, part.start.sequence) != (org_id, reached):
            message = f"the site did not go on after event {reached}, which may have been dropped now; try again"
            raise Refusal("artifact_malformed", message)


async def checked_audit_log(
    parts: AuditParts, heads: AuditHeads, into: BinaryIO, known: AuditHead | None = None
) -> VerifiedAuditLog:
    """Fetch the log into an empty file, check it against `known` and the kept head, and keep the newer head.

    Raises the Refusals of `fetch_audit_log` and `verify_audit_log`.
    """
    before = heads.load()
    await fetch_audit_log(parts, into)
    verified = verify_audit_file(into, known)
    seen = before.get(verified.org_id)
    if seen is not None:
        verify_audit_file(into, seen)
    # Another process may have kept one meanwhile. The log need not reach one that is newer than its own.
    while (now := await heads.keep(verified.org_id, verified.head, seen)) is not None:
        if now.sequence <= verified.head.sequence:
            verify_audit_file(into, now)
        seen = now
    return verified


def verify_audit_file(file: BinaryIO, known: AuditHead | None = None) -> VerifiedAuditLog:
    """Check the log in a file. Raises the Refusals of `verify_audit_log`."""
    file.seek(0)
    return verify_audit_log(_lines(file), known=known)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
