"""Reads of the read models, for the person or service account on whose behalf a call is made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_runlog.state import RunStatus
from services.projector.app.ports import Checkpoint, ReadStore, SummaryQuery
from services.projector.domain.run_summary import RunSummary

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """Summaries, newest first. `next_key` is what the next page comes after; empty when this is the last."""

    summaries: Sequence[RunSummary]
    next_key: str


def list_digest(principal: Principal, status: RunStatus | None) -> bytes:
    """SHA-256 of what a list is about: a page token of one list can't be used with another, or by another."""
    parts = ("ListRunSummaries", principal.kind.value, principal.subject, principal.org_id, status or "")
    return hashlib.sha256("\n".join(parts).encode()).digest()


class Reads:
    """Owner and org come from the principal: a person's own runs in the org, all of the org's for a service account.

    A single run may be read by every member of its org, and by whoever started it. What one may not read looks like
    what does not exist.
    """

    def __init__(self, store: ReadStore) -> None:
        self._store = store

    async def summary(self, principal: Principal, run_id: str) -> RunSummary:
        """The run's summary. Raises Refusal(not_found)."""
        summary = await self._store.summary(run_id)
        if summary is None or not _may_read(principal, summary):
            raise Refusal(
                "not_found",
                f"there is no run {run_id} in the read model; a new one takes a moment",
                field="run_id",
            )
        return summary

    async def summaries(
        self, principal: Principal, status: RunStatus | None, page_size: int, after_key: str
    ) -> SummaryPage:
        """The page after `after_key`; a page size of 0 is the default, a larger one than the maximum is that."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        user_id = principal.subject if principal.kind is PrincipalKind.USER else None
        # One more than asked for tells whether there is a next page.
        found = await self._store.summaries(SummaryQuery(principal.org_id, user_id, status, after_key, size + 1))
        page = found[:size]
        return SummaryPage(page, page[-1].run_id if len(found) > size else "")

    async def checkpoints(self) -> list[Checkpoint]:
        """How far every projection has come."""
        return await self._store.all_checkpoints()


def _may_read(principal: Principal, summary: RunSummary) -> bool:
    return summary.org_id == principal.org_id or summary.user_id == principal.subject
