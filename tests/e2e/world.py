"""What an end-to-end test does as a person would: sign in, attach a worker, start a run, follow it, check the proof."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from oa_client.client import Client, applied_log
from oa_client.core.log import LogFold
from oa_client.core.store import WatermarkStore
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import Site
from oa_client.follow.subscription import Subscription
from oa_client.follow.updates import Applied, Connection
from oa_khala.topics import run_events
from oa_localstack.installation.environment import mail_file
from oa_runlog import events
from oa_runlog.proof.receipt import ReceiptFacts
from oa_testing.fork_server import PYTHON
from oa_testing.stack import StackUnderTest

EMAIL = "ann@example.org"
STEP_TIMEOUT_S = 120.0
"""How long anything may take that should take a moment: a guard against waiting for ever, on any machine."""
RUN_TIMEOUT_S = 300.0
"""The same for a whole run and what is done to it."""
WORKER = (PYTHON, "-P", "-m", "tests.e2e.worker_main")


@dataclass
class Tail:
    """What following a run brought, over any number of subscriptions."""

    run_id: str
    seqs: list[int] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    breaks: int = 0
    finish: events.RunFinished | None = None

    def __post_init__(self) -> None:
        self._fold = LogFold(self.run_id)

    def take(self, seq: int, payload: bytes) -> None:
        """One more element; raises ValueError unless it continues what was taken."""
        event = self._fold.add(seq, payload)
        self.seqs.append(seq)
        match event.body:
            case events.TextDelta(stream=events.TextStream.STDOUT, data=data):
                self.stdout += data
            case events.TextDelta(stream=events.TextStream.STDERR, data=data):
                self.stderr += data
            case events.RunFinished() as finish:
                self.finish = finish


OnSeq = Callable[[Subscription, int], Awaitable[bool | None]]


class World:
    """A stack with a person who is signed in."""

    def __init__(self, stack: StackUnderTest, client: Client, site: Site) -> None:
        self.stack = stack
        self.client = client
        self._site = site
        self._api_key = ""
        self.closing = ExitStack()

    def open_store(self) -> WatermarkStore:
        """The person's watermark store on this device, opened once more; closed with the world."""
        store = self._site.store(self.client)
        self.closing.callback(store.close)
        return store

    @asynccontextmanager
    async def worker(self, api_key: str = "") -> AsyncIterator[subprocess.Popen[bytes]]:
        """A real worker process, attached or about to be; of an account that all of them share, or of that of a key."""
        if not api_key and not self._api_key:
            self._api_key = (await self.client.commands.create_service_account("e2e")).api_key
        path = os.pathsep.join(entry for entry in sys.path if entry)
        env = {**os.environ, **self.stack.env, "OA_API_KEY": api_key or self._api_key, "PYTHONPATH": path}
        with self.stack.log_path("worker").open("ab") as log:
            process = await asyncio.to_thread(subprocess.Popen, WORKER, env=env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, STEP_TIMEOUT_S)
            finally:
                process.kill()
                process.wait()

    async def follow(self, tail: Tail, store: WatermarkStore, on_seq: OnSeq | None = None) -> None:
        """Apply the run's events to `tail` until it is finished, or `on_seq` says False.

        What an earlier subscription persisted and did not hand out any more is taken from the store first.
        """
        topic = run_events(tail.run_id)
        for element in store.elements(topic, len(tail.seqs)):
            tail.take(element.seq, element.payload)
        if tail.finish:
            return
        async with self.client.subscription(store) as subscription:
            await subscription.follow(topic)
            async for update in subscription.updates():
                if isinstance(update, Connection):
                    tail.breaks += not update.open
                if isinstance(update, Applied):
                    tail.take(update.seq, update.payload)
                    go_on = await on_seq(subscription, update.seq) if on_seq else True
                    if tail.finish or go_on is False:
                        return

    async def assert_proved(self, tail: Tail, store: WatermarkStore) -> ReceiptFacts:
        """What was applied is exactly the log, and the receipt proves it."""
        run_id = tail.run_id
        run = await self.client.commands.run(run_id)
        log = applied_log(store, run_id)
        assert tail.seqs == list(range(1, run.latest_seq + 1))
        assert (log.count, log.first_seq, log.last_seq) == (run.latest_seq, 1, run.latest_seq)
        assert log.chain_head == run.chain_head
        _, facts = await self.client.proofs.record(run_id, store)
        assert (facts.count, facts.first_seq, facts.last_seq) == (log.count, 1, log.last_seq)
        assert facts.chain_head == log.chain_head.hex()
        return facts

    async def assert_summarised(self, tail: Tail) -> None:
        """The read model gets to where the log is."""
        run = await self.client.commands.run(tail.run_id)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while True:
                found = {one.run_id: one for one in (await self.client.commands.runs()).runs}
                summary = found.get(tail.run_id)
                if summary and (summary.status, summary.latest_seq) == (run.status, run.latest_seq):
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def signed_in(
    stack: StackUnderTest, home: Path, email: str = EMAIL, ca_file: Path | None = None, khala_url: str = ""
) -> AsyncIterator[World]:
    """A person at a device whose client keeps its files in `home`, signed in with a code from the mail."""
    site = Site(ClientHome(home), stack.urls["control"], ca_file=ca_file, khala_url=khala_url)
    async with site.client() as client:
        challenge = await client.auth.start(email)
        await client.auth.verify(challenge, await code_for(stack, challenge.challenge_id))
        world = World(stack, client, site)
        with world.closing:
            yield world


async def code_for(stack: StackUnderTest, challenge_id: str) -> str:
    """The code of a challenge, once its mail has left."""
    path = mail_file(stack.home)
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while True:
            lines = await asyncio.to_thread(lambda: path.read_text().splitlines() if path.exists() else [])
            # A relay that only reads letters doesn't know of challenges.
            mails = [mail for mail in map(json.loads, lines) if mail.get("challenge_id", challenge_id) == challenge_id]
            codes = [mail["code"] for mail in mails if "code" in mail]
            if codes:
                return str(codes[-1])
            await asyncio.sleep(0.02)


class Counting:
    """A command that writes numbered lines to stdout, every tenth to stderr too, in `parts` of the same size.

    Between two parts it waits for `go_on()`, so what a test does before is done in the middle of the run, however
    fast the machine is.
    """

    PAUSE_S = 0.01

    def __init__(self, gates: Path, *, lines: int, parts: int = 2) -> None:
        if lines % parts:
            raise ValueError(f"{lines} lines can't be written in {parts} parts of the same size")
        gates.mkdir(parents=True, exist_ok=True)
        self._gates = gates
        self._opened = 0
        self.ended = gates / "ended"
        self.stdout = "".join(f"line {n}\n" for n in range(lines)).encode()
        self.stderr = "".join(f"note {n}\n" for n in range(0, lines, 10)).encode()
        part = lines // parts
        program = (
            "import os, sys, time\n"
            f"os.chdir({str(gates)!r})\n"
            f"for n in range({lines}):\n"
            f"    while n and n % {part} == 0 and not os.path.exists(str(n // {part})): time.sleep(0.01)\n"
            "    print(f'line {n}', flush=True)\n"
            "    if n % 10 == 0: print(f'note {n}', file=sys.stderr, flush=True)\n"
            f"    time.sleep({self.PAUSE_S})\n"
            "open('ended', 'w').close()\n"
        )
        self.command = [sys.executable, "-c", program]

    def go_on(self) -> None:
        """Let the command write its next part."""
        self._opened += 1
        (self._gates / str(self._opened)).touch()

    async def until_ended(self) -> None:
        """Until the command has written everything."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while not self.ended.exists():
                await asyncio.sleep(0.02)
