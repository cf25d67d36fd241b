"""A conversation with Codex: one run for each turn, and each line that a person types goes where it belongs.

Between turns, a line is the next prompt. During a turn, a line that answers what Codex asks is the answer: a yes or a
no, one of the options, or any line if a text is asked for. Any other line is said to the turn. The first Ctrl-C in a
turn interrupts the turn; a second one leaves it alone and ends `oa`.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager

import click
from ulid import ULID

from apps.cli.exits import Exit, exit_of_run
from apps.cli.following.no_worker import NoWorkerHint
from apps.cli.following.run_ids import remember_started
from apps.cli.following.tail import TailView
from apps.cli.input.typed import TypedLines
from apps.cli.program import Cli
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.follow.items import Seen
from oa_client.follow.run_tail import RunTail
from oa_runlog import events

MAX_TITLE_CHARS = 200
ADAPTER = "codex"
_YES_OR_NO = {"y": "yes", "yes": "yes", "n": "no", "no": "no"}
_HOW = {
    events.RequestKind.APPROVAL: "yes or no?",
    events.RequestKind.CHOICE: "which one? Its number, or its words",
    events.RequestKind.TEXT: "your answer?",
}


class Conversation:
    """`options`: the input of each turn beside its prompt. `thread_id` groups its runs; `resume`: its Codex thread."""

    def __init__(self, cli: Cli, client: Client, options: Mapping[str, object], thread_id: str, resume: str) -> None:
        self._cli = cli
        self._client = client
        self._options = options
        self._thread_id = thread_id or f"codex-{ULID()}"
        self._resume = resume
        self._typed = TypedLines()
        self._next = ""

    async def hold(self, prompt: str) -> int:
        """Take turns from the first prompt, given or typed, to the end of input. Return the last turn's exit code."""
        code: int = Exit.OK
        while prompt or (prompt := await self._prompt()):
            code = await self._turn(prompt)
            prompt = ""
            if self._cli.output.gone:
                break  # nobody can see what follows
        return code

    async def _prompt(self) -> str:
        if self._next:
            prompt, self._next = self._next, ""
            return prompt
        if not self._typed.ended and self._cli.output.rich:
            self._cli.output.note("Say what to do; Ctrl-D ends.")
        return await self._typed.next() or ""

    async def _turn(self, prompt: str) -> int:
        given = {"prompt": prompt, **self._options}
        if self._resume:
            given["resume"] = self._resume
        spec = events.RunSpec(
            ADAPTER,
            events.AgentSpec(json.dumps(given, ensure_ascii=False)),
            " ".join(prompt.split())[:MAX_TITLE_CHARS],
            self._thread_id,
        )
        run = await self._client.commands.create_run(spec)
        remember_started(self._client, self._cli.site.folder, run.run_id)
        self._cli.output.note(run.run_id)
        talk = Talk(self._cli, self._client, run.run_id, self._typed)
        following = asyncio.create_task(self._follow(run.run_id, talk))
        listening = asyncio.create_task(talk.listen())
        try:
            with _interrupts(talk.interrupt, following.cancel):
                await asyncio.wait({following})
        finally:
            self._next = await talk.close(listening)
            if not following.done():
                following.cancel()
        if following.cancelled():
            if talk.finish is None:  # else the connection was just being closed
                self._cli.goes_on = f"the turn goes on; `oa run tail {run.run_id}` follows it"
            raise click.Abort
        following.result()
        return exit_of_run(talk.finish) if talk.finish else Exit.OK

    async def _follow(self, run_id: str, talk: Talk) -> None:
        """Show the turn to its end."""
        output = self._cli.output
        view = TailView(output)
        hint = NoWorkerHint(output, self._client.edge.now_at_edge)
        with closing(self._cli.site.store(self._client)) as store:
            try:
                async with aclosing(RunTail(self._client, store, run_id).items()) as items:
                    async for item in items:
                        hint.heard(item)
                        body = item.event.body if isinstance(item, Seen) else None
                        view.skip(item) if _said_better(body) and not output.as_json else view.show(item)
                        self._note(body, talk)
                        if isinstance(body, events.RunFinished):
                            talk.finish = body
                        if talk.finish is not None or output.gone:
                            break
            finally:
                hint.cancel()

    def _note(self, body: events.EventBody | None, talk: Talk) -> None:
        match body:
            case events.CodexEvent(codex_thread_id=thread_id) if thread_id and not self._resume:
                self._resume = thread_id  # the first that is named is the turn's own
            case events.RequestOpened() as asked:
                talk.asked(asked)
            case events.RequestAnswered(request_id=name) | events.RequestExpired(request_id=name):
                talk.settled(name)


class Talk:
    """Handles what is typed during one turn."""

    def __init__(self, cli: Cli, client: Client, run_id: str, typed: TypedLines) -> None:
        self._cli = cli
        self._talk = client.commands.talk
        self._commands = client.commands
        self._run_id = run_id
        self._typed = typed
        self._open: list[events.RequestOpened] = []
        self._saying = asyncio.Lock()
        self._unsaid = ""
        self._canceling: asyncio.Task[None] | None = None
        self.finish: events.RunFinished | None = None
        """How the turn ended, once that is known."""

    def asked(self, request: events.RequestOpened) -> None:
        """Codex asks. The oldest question is shown, and the next one when that is settled."""
        self._open.append(request)
        if len(self._open) == 1:
            self._show(request)

    def settled(self, request_id: str) -> None:
        """Somebody has answered, or nobody has in time."""
        shown = self._open[:1]
        self._open = [request for request in self._open if request.request_id != request_id]
        if self._open and self._open[:1] != shown:
            self._show(self._open[0])

    def _show(self, request: events.RequestOpened) -> None:
        """Show all that there is to know about a request."""
        self._cli.output.note(f"Codex asks: {request.title}", "yellow")
        for line in request.detail.splitlines():
            self._cli.output.note(f"  {line}", "")
        if request.kind is events.RequestKind.CHOICE:
            for option in request.options:
                self._cli.output.note(f"  {option.id}: {option.label or option.id}", "")
        if not self._typed.ended:
            self._cli.output.note(_HOW[request.kind], "yellow")

    async def listen(self) -> None:
        """Send each line to the turn, to the end of the input."""
        while (line := await self._typed.next()) is not None:
            try:
                await self._saying.acquire()
            except asyncio.CancelledError:  # the turn is over
                self._keep(line)
                raise
            try:
                await self._say(line)
            except Refusal as refusal:
                self._refused(line, refusal)
            finally:
                self._saying.release()

    async def close(self, listening: asyncio.Task[None]) -> str:
        """End the talk, because the turn is over. Return what was typed too late for it."""
        async with self._saying:
            listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if self._canceling is not None:
            await asyncio.gather(self._canceling, return_exceptions=True)
        return self._unsaid

    def interrupt(self) -> None:
        """Interrupt the turn, at the first Ctrl-C."""
        self._cli.output.note("Interrupting the turn; once more leaves it alone.")
        self._canceling = asyncio.create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._commands.cancel(self._run_id, "interrupted at the terminal")
        except Refusal as refusal:
            self._cli.output.note(f"not interrupted: {refusal}", "yellow")

    async def _say(self, line: str) -> None:
        asked = self._open[0] if self._open else None
        option, text = answer_of(asked, line) if asked else ("", "")
        if asked and (option or text):
            await self._talk.answer(self._run_id, asked.request_id, option=option, text=text)
            self.settled(asked.request_id)  # the next line is not for it
        else:
            await self._talk.send(self._run_id, json.dumps(line, ensure_ascii=False))

    def _refused(self, line: str, refusal: Refusal) -> None:
        if refusal.reason == "invalid_transition":  # the turn is over, or about to end
            self._keep(line)
        else:
            self._cli.output.note(f"not said: {refusal}", "yellow")

    def _keep(self, line: str) -> None:
        """Keep a line for the next turn."""
        self._unsaid = f"{self._unsaid}\n{line}" if self._unsaid else line


def answer_of(asked: events.RequestOpened, line: str) -> tuple[str, str]:
    """Return the option and the text that a line means as an answer; both are empty for a line that is no answer."""
    word = " ".join(line.split()).casefold()
    match asked.kind:
        case events.RequestKind.TEXT:
            return "", line
        case events.RequestKind.APPROVAL:
            return _YES_OR_NO.get(word, ""), ""
    names = {option.label.casefold(): option.id for option in asked.options if option.label}
    names |= {option.id.casefold(): option.id for option in asked.options}
    return names.get(word, ""), ""


async def thread_of(cli: Cli, client: Client, run_id: str) -> tuple[str, str]:
    """Return the group and the Codex thread of a run that took a turn. Raises Refusal."""
    run = await client.commands.run(run_id)
    if run.adapter != ADAPTER:
        message = f"{run_id} is a run of {run.adapter!r}, and no turn of Codex; name one that is"
        raise Refusal("invalid_value", message, field="--continue")
    if run.finish is None:
        raise Refusal("run_not_finished", "its turn still runs; follow it with oa run tail", field="--continue")
    group = ""
    with closing(cli.site.store(client)) as store:
        async with aclosing(RunTail(client, store, run_id).items()) as items:
            async for item in items:
                match item.event.body if isinstance(item, Seen) else None:
                    case events.RunCreated(spec=spec):
                        group = spec.thread_id
                    case events.CodexEvent(codex_thread_id=thread_id) if thread_id:
                        return group, thread_id
    message = "its turn has not come to a Codex thread; begin a new one without --continue"
    raise Refusal("invalid_value", message, field="--continue")


@contextmanager
def _interrupts(first: Callable[[], None], second: Callable[[], object]) -> Iterator[None]:
    """Within the block, Ctrl-C calls `first`, then `second`, unless it is ignored from the start."""
    loop = asyncio.get_running_loop()
    kept = signal.getsignal(signal.SIGINT)
    told = False

    def told_once_more() -> None:
        nonlocal told
        second() if told else first()
        told = True

    if kept is signal.SIG_IGN:
        yield
        return
    loop.add_signal_handler(signal.SIGINT, told_once_more)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, kept)


def _said_better(body: events.EventBody | None) -> bool:
    """Whether the conversation tells the event in its own words, or need not tell it."""
    match body:
        case events.RequestOpened() | events.StepCompleted() | events.CodexEvent(kind=events.ControlRequest()):
            return True
    return False
