"""The steps of the demo, and the checks that must hold: sign in, run, watch, cut, resume, compare, prove.

Nothing here is staged. The run's command runs in the worker's process; the cut is a TCP reset of the live tail. A fresh
client (new connections, new store object) resumes, and knows nothing but what SQLite holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from apps.cli.commands.identity.account import DEV_EMAIL, dev_code, mails
from apps.cli.demo.checks import Check
from apps.cli.demo.view import View
from oa_client.client import applied_log
from oa_client.core.log import AppliedLog
from oa_client.core.models import Run
from oa_client.core.store import MAX_BATCH
from oa_client.cpython.site import Site
from oa_client.follow.items import Seen
from oa_client.follow.run_tail import RunTail
from oa_khala.topics import run_events
from oa_runlog import events
from oa_runlog.proof.receipt import ReceiptFacts

CUT_AFTER = (2, 5, 20, 100)
"""The live tail is cut after these events, as far as the run gets. Every run has at least three (it is created, it is
started, it is finished), so the first cut lies within every run; the last ones within long runs only."""


@dataclass(frozen=True)
class Cut:
    """The TCP connection was reset after event `after_seq`; `watermark` is what SQLite held then."""

    after_seq: int
    watermark: int
    resumed_at: int = 0
    """Seq of the first event that the fresh client got."""


@dataclass
class Watched:
    """The results of watching the run."""

    run: Run
    cuts: list[Cut] = field(default_factory=list)
    output_bytes: int = 0
    finish: events.RunFinished | None = None

    @property
    def run_outcome(self) -> str:
        """How the run ended."""
        return self.finish.outcome.value if self.finish else "failed"


class Story:
    """One demo, shown by `view`."""

    def __init__(self, site: Site, view: View) -> None:
        self._site = site
        self._view = view

    async def sign_in(self, mailbox: Path) -> str:
        """Step 1: the e-mail-code flow, unless this device is signed in already. Returns the user's id."""
        async with self._site.client() as client:
            skip = len(mails(mailbox))
            challenge = await client.auth.start(DEV_EMAIL)
            code = await dev_code(mailbox, challenge.email, skip)
            credentials = await client.auth.verify(challenge, code)
            caller = await client.commands.caller()
        self._view.signed_in(DEV_EMAIL, caller.subject, credentials.org_id, len(code))
        return credentials.user_id

    async def watch(self, argv: Sequence[str], directory: Path) -> Watched:
        """Step 3: start the run, tail it live, cut the connection, resume, to the end."""
        async with self._site.client() as client:
            run = await client.commands.start_exec(argv, working_directory=str(directory))
        self._view.started(run.run_id, argv)
        watched = Watched(run)
        for cut_after in (*CUT_AFTER, None):
            if watched.finish is None:
                await self._watch_until(watched, cut_after)
        return watched

    async def _watch_until(self, watched: Watched, cut_after: int | None) -> None:
        """Watch with one client instance, from the stored watermark to the cut, or to the end of the run."""
        run_id = watched.run.run_id
        async with self._site.following() as (client, store):
            # One element at a time until the last cut, so that the cut falls exactly where it is said to.
            tail = RunTail(client, store, run_id, max_batch=MAX_BATCH if cut_after is None else 1)
            async with aclosing(tail.items()) as items:
                async for item in items:
                    if not isinstance(item, Seen):
                        self._view.broke(str(item))
                        continue
                    if not item.live:
                        continue
                    self._take(watched, item)
                    if item.event.seq == cut_after and watched.finish is None and self._cut(tail):
                        stored = store.cursor(run_events(run_id))
                        watched.cuts.append(Cut(item.event.seq, stored.applied_seq if stored else 0))
                        self._view.cut(item.event.seq)
                        return

    @staticmethod
    def _cut(tail: RunTail) -> bool:
        return tail.subscription is not None and tail.subscription.cut()

    def _take(self, watched: Watched, item: Seen) -> None:
        seq, body = item.event.seq, item.event.body
        if watched.cuts and not watched.cuts[-1].resumed_at:
            last = watched.cuts[-1]
            watched.cuts[-1] = Cut(last.after_seq, last.watermark, seq)
            self._view.resumed(seq)
        if isinstance(body, events.TextDelta):
            watched.output_bytes += len(body.data)
        elif isinstance(body, events.RunFinished):
            watched.finish = body
        self._view.event(item.event)

    async def compare(self, watched: Watched) -> list[Check]:
        """Steps 3 and 4: compare what was applied with the authority's answer and the verified receipt."""
        run_id = watched.run.run_id
        async with self._site.following() as (client, store):
            log = applied_log(store, run_id)
            run = await client.commands.run(run_id)
            receipt, facts = await client.proofs.record(run_id, store)
        checks = [*_cut_checks(watched, log), *_log_checks(log, run, facts), *_outcome_checks(watched, run, facts)]
        self._view.compared(checks)
        if all(check.holds for check in checks):
            self._view.proved(receipt, facts, log)
        return checks

    async def summarised(self, run_id: str, timeout_s: float) -> bool:
        """Whether the read model (`oa run list`) has the run's end within the time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._site.client() as client:
            while asyncio.get_running_loop().time() < deadline:
                runs = (await client.commands.runs(page_size=20)).runs
                if any(run.run_id == run_id and run.ended for run in runs):
                    return True
                await asyncio.sleep(0.1)
        return False


def _cut_checks(watched: Watched, log: AppliedLog) -> list[Check]:
    """Check that each cut was within the run, its watermark persisted, and the next event the fresh client's first."""
    checks = [
        Check(
            f"resumed after {cut.after_seq}",
            f"event {cut.resumed_at}",
            f"event {cut.watermark + 1}",
            f"event {cut.after_seq + 1}",
        )
        for cut in watched.cuts
    ]
    inside = bool(watched.cuts) and all(0 < cut.after_seq < log.last_seq for cut in watched.cuts)
    return [*checks, Check("cuts within the run", str(inside).lower(), "true", "")]


def _log_checks(log: AppliedLog, run: Run, facts: ReceiptFacts) -> list[Check]:
    return [
        Check("events", str(log.count), str(run.latest_seq), str(facts.count)),
        Check("first seq", str(log.first_seq), "1", str(facts.first_seq)),
        Check("last seq", str(log.last_seq), str(run.latest_seq), str(facts.last_seq)),
        Check("chain head", log.chain_head.hex(), run.chain_head.hex(), facts.chain_head),
    ]


def _outcome_checks(watched: Watched, run: Run, facts: ReceiptFacts) -> list[Check]:
    checks = [Check("outcome", watched.run_outcome, run.finish.outcome if run.finish else "none", facts.outcome.value)]
    if run.finish is not None and (run.finish.stdout_bytes or run.finish.stderr_bytes):
        measured = run.finish.stdout_bytes + run.finish.stderr_bytes
        checks.append(Check("output bytes", str(watched.output_bytes), str(measured), ""))
    return checks
