"""Shows the demo: colors and marks on a terminal, plain lines when piped, JSON lines with `--json`."""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Sequence

from apps.cli.demo.checks import Check
from apps.cli.following.rendering import finish_words
from apps.cli.output import Output, bytes_words
from apps.cli.terminal import uncoloured
from oa_client.core.log import AppliedLog, TextDecoder
from oa_localstack.processes.supervision import Event
from oa_runlog import events
from oa_runlog.proof.receipt import ReceiptFacts, SignedReceipt

LINES_SHOWN = 6
"""Lines of the command's output shown per connection; the rest is counted."""
LINE_CHARS = 96
_SHORT_HASH = 16


class View:
    """Shows a demo."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._decoder = TextDecoder()
        self._began_s = time.monotonic()
        self._lines = 0
        self._partial = ""
        self._cut_at_s = 0.0
        self._segment = [0, 0, 0]  # first seq, last seq, bytes of text

    # ------------------------------------------------------------------------------------------------------- stack

    def opening(self, reused: bool) -> None:
        """The stack is about to start."""
        self._output.say("OpenAgents Runtime: one real run, watched live, cut, resumed, proved", "bold")
        self._output.say(
            "A stack runs here already; using it." if reused else "Starting PostgreSQL and four services …"
        )

    def process(self, event: Event) -> None:
        """A process of the stack changed."""
        self._output.say(f"  {event.name} {event.change.value} {event.detail}".rstrip(), "dim")
        self._output.document({"step": "stack", "process": event.name, "change": event.change.value})

    def ready(self, urls: dict[str, str]) -> None:
        """The stack is ready."""
        self._output.say(f"  ready after {time.monotonic() - self._began_s:.1f} s", "green")
        self._output.document({"step": "stack", "ready": True, "urls": urls})

    # ------------------------------------------------------------------------------------------------------- steps

    def step(self, number: int, title: str) -> None:
        """A step begins."""
        self._output.say("")
        self._output.say(f"{number}. {title}", "bold cyan")

    def signed_in(self, email: str, user_id: str, org_id: str, digits: int) -> None:
        """Step 1 is done."""
        self._output.say(f"  {email} asked for a code; its {digits} digits came by (development) mail")
        self._output.say(f"  signed in as {user_id} in {org_id}", "green")
        self._output.document({"step": "sign_in", "email": email, "userId": user_id, "orgId": org_id})

    def worker(self, worker_id: str, pid: int) -> None:
        """Step 2 is done."""
        self._output.say(f"  {worker_id} attached, adapter exec, process {pid}", "green")
        self._output.document({"step": "worker", "workerId": worker_id, "pid": pid})

    def started(self, run_id: str, argv: Sequence[str]) -> None:
        """The run has been created."""
        self._output.say(f"  $ {shlex.join(argv)}", "bold")
        self._output.say(f"  {run_id}", "dim")
        self._output.document({"step": "run", "runId": run_id, "argv": list(argv)})

    def event(self, event: events.RunEvent) -> None:
        """An event has been applied and persisted."""
        first, _, text_bytes = self._segment
        body = event.body
        if isinstance(body, events.TextDelta):
            text_bytes += len(body.data)
            self._text(self._decoder.text(body))
        self._segment = [first or event.seq, event.seq, text_bytes]
        if isinstance(body, events.RunFinished):
            self._end_segment()
            good = body.outcome is events.Outcome.SUCCEEDED
            self._output.say(f"  {finish_words(body)}", "green" if good else "red")
            self._output.document({"step": "run", "finished": body.outcome.value, "reason": body.reason})

    def cut(self, seq: int) -> None:
        """The connection has been reset."""
        self._end_segment()
        self._cut_at_s = time.monotonic()
        self._output.say(f"  ✂ TCP connection reset after event {seq}; SQLite holds watermark {seq}", "bold yellow")
        self._output.document({"step": "cut", "afterSeq": seq})

    def resumed(self, seq: int) -> None:
        """The fresh client got its first event."""
        took_ms = round((time.monotonic() - self._cut_at_s) * 1000)
        self._output.say(f"  ↻ a fresh client read the watermark and goes on with event {seq}, {took_ms} ms later")
        self._output.document({"step": "resume", "firstSeq": seq, "afterMs": took_ms})

    def broke(self, what: str) -> None:
        """Something unexpected happened to the connection, which repairs itself."""
        self._output.say(f"  {what}", "yellow")

    def _text(self, text: str) -> None:
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._lines += 1
            if self._lines <= LINES_SHOWN:
                self._output.say(f"  │ {uncoloured(line)[:LINE_CHARS]}", "dim")

    def _end_segment(self) -> None:
        first, last, text_bytes = self._segment
        if self._lines > LINES_SHOWN:
            self._output.say(f"  │ … {self._lines - LINES_SHOWN} more lines", "dim")
        if first:
            span = f"event {first}" if first == last else f"events {first} to {last}"
            self._output.say(f"  applied {span}, {bytes_words(text_bytes)} of output")
        self._segment, self._lines = [0, 0, 0], 0

    # ------------------------------------------------------------------------------------------------------- proof

    def compared(self, checks: Sequence[Check]) -> None:
        """Show what each side says."""
        self._output.say("")
        rows = [
            [_mark(check.holds), check.name, _short(check.applied), _short(check.authority), _short(check.receipt)]
            for check in checks
        ]
        self._output.table(["", "", "applied here", "authority", "receipt"], rows)
        for check in checks:
            self._output.document(
                {
                    "step": "check",
                    "name": check.name,
                    "holds": check.holds,
                    "applied": check.applied,
                    "authority": check.authority,
                    "receipt": check.receipt,
                }
            )

    def proved(self, receipt: SignedReceipt, facts: ReceiptFacts, log: AppliedLog) -> None:
        """Step 4: the receipt, verified."""
        self.step(4, "The receipt")
        rows = [
            ["run", facts.run_id],
            ["owner", f"{facts.user_id} in {facts.org_id}"],
            ["outcome", facts.outcome.value],
            ["events", f"{facts.count}, seq {facts.first_seq} to {facts.last_seq}"],
            ["chain head", facts.chain_head],
            ["signed with", f"{receipt.key_id} (Ed25519)"],
            ["signature", base64.b64encode(receipt.signature).decode()[:48] + "…"],
        ]
        self._output.pairs([[f"  {name}", value] for name, value in rows])
        self._output.say(
            f"  ✔ verified here: the signature under the pinned key, {log.count} events "
            f"({bytes_words(log.payload_bytes)}), their chain, and the outcome they lead to",
            "bold green",
        )
        self._output.document({"step": "receipt", "verified": True, "facts": facts.members()})

    def failed(self, checks: Sequence[Check]) -> None:
        """Something does not hold."""
        for check in checks:
            if not check.holds:
                self._output.say(f"  ✘ {check.name} does not hold", "bold red")

    def summarised(self, there: bool) -> None:
        """Whether the read model has the run."""
        self._output.document({"step": "read_model", "hasRun": there})
        if not there:
            self._output.say("  ✘ the read model does not have the run's end", "bold red")

    # ------------------------------------------------------------------------------------------------------- the end

    def staying_up(self, urls: dict[str, str], run_id: str, own: bool, prefix: str) -> None:
        """Step 5: the stack stays up. `prefix` goes before the commands, if they need a setting to find it."""
        self.step(5, "Yours")
        self._output.say(f"  public edge  {urls['control']}")
        self._output.say(f"  Khala        {urls['khala']}")
        self._output.say("  Try, in another shell (.venv/bin/oa, or activate .venv):")
        for line in ("oa run start -- uname -a", f"oa run tail --from-start {run_id}", f"oa receipt verify {run_id}"):
            self._output.say(f"    {prefix}{line}", "bold")
        self._output.say("  Ctrl-C stops everything." if own else "  Ctrl-C stops the worker.", "dim")
        self._output.document({"step": "up", "urls": urls, "runId": run_id})

    def done(self, ok: bool) -> None:
        """The demo is over."""
        self._output.document({"step": "done", "ok": ok})


def _mark(holds: bool) -> str:
    return "✔" if holds else "✘"


def _short(value: str) -> str:
    return value[:_SHORT_HASH] + "…" if len(value) == 64 else value
