"""Whatever a site, a worker, a run or a file says, no command lets it drive the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apps.cli.__main__ import run
from apps.cli.commands.local import stack as stack_commands
from apps.cli.commands.local import workers
from apps.cli.demo.checks import Check
from apps.cli.demo.view import View
from apps.cli.exits import Exit
from apps.cli.output import Output
from apps.cli.pages import commands_of
from apps.cli.program import oa
from apps.cli.terminal import uncoloured
from apps.cli.tests.hostile import (
    CONTROL_URL,
    FILE_NAME,
    OUR_NAME,
    RUN,
    WORD,
    HostileHttp,
    HostileRun,
    Screen,
    keep,
    key,
    screens,
)
from oa_base.refusal import Refusal
from oa_base.visible import LAYOUT, visible
from oa_client.client import Client
from oa_client.core.log import fold
from oa_client.core.store import Element
from oa_client.cpython.files import ClientHome, FileCredentialStore
from oa_client.cpython.network import HttpxHttp
from oa_client.edge.auth import Credentials
from oa_client.follow import updates
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_localstack.installation.state import ProcessMark, StackState, state_path
from oa_localstack.processes.supervision import Change, Event
from oa_localstack.services import Answer
from oa_runlog.proof.receipt import read_facts
from oa_runlog.wire import decode_event
from oa_worker.sdk.notices import Attached, Detached, RunLeft, RunTaken
from openagents.runtime.v1.event_pb2 import RunFinished

SHOWN = r"\x1b[2J"
HOSTILE_FILE = "FILE"
"""Stands for a file with a hostile name that holds a hostile run."""
STACK_COMMANDS = ("up", "down", "status", "demo", "worker start")
COMMANDS: dict[str, Sequence[str]] = {
    "account delete": ("--dry-run",),
    "audit export": (HOSTILE_FILE,),
    "audit list": ("--actor", WORD),
    "audit verify": (),
    "codex": ("--cwd", WORD, "--model", WORD, WORD),
    "demo": (),
    "down": (),
    "invitation accept": ("inv_01JD8V0000000000000000000A",),
    "invitation decline": ("inv_01JD8V0000000000000000000A",),
    "invitation list": (),
    "invitation resend": ("inv_01JD8V0000000000000000000A",),
    "invitation revoke": ("inv_01JD8V0000000000000000000A",),
    "key create": (WORD, "--personal", "--scope", WORD, "--ttl", "1d"),
    "key list": ("--all", "--personal"),
    "key revoke": ("sva_01JD8V0000000000000000000A",),
    "key rotate": ("apk_01JD8V0000000000000000000A",),
    "login": ("--email", WORD),
    "logout": (),
    "member invite": (WORD,),
    "member list": (),
    "member remove": ("usr_01JD8V0000000000000000000A",),
    "member role": ("usr_01JD8V0000000000000000000A", "viewer"),
    "org create": (WORD,),
    "org delete": ("org_01JD8V0000000000000000000A",),
    "org leave": ("org_01JD8V0000000000000000000A",),
    "org list": (),
    "org rename": ("org_01JD8V0000000000000000000A", WORD),
    "org restore": ("org_01JD8V0000000000000000000A",),
    "org switch": ("org_01JD8V0000000000000000000A",),
    "org transfer": ("org_01JD8V0000000000000000000A", "usr_01JD8V0000000000000000000A"),
    "receipt keys": (),
    "receipt show": (RUN,),
    "receipt verify": (RUN,),
    "replay fetch": (RUN, "-o", "FILE"),
    "replay save": (RUN, HOSTILE_FILE),
    "replay show": ("--key", key(), HOSTILE_FILE),
    "replay verify": ("--key", key(), HOSTILE_FILE),
    "run cancel": (RUN, "--reason", WORD),
    "run send": (RUN, WORD),
    "request answer": (RUN, WORD, WORD),
    "request list": (RUN, "--all"),
    "run list": (),
    "run result": (RUN,),
    "run show": (RUN,),
    "run start": ("--title", WORD, "--", WORD),
    "run tail": ("--from-start", RUN),
    "schedule backfill": ("--from", "2026-01-01", "--to", "2026-01-02", WORD),
    "schedule create": ("--every", "1h", WORD, "--", WORD),
    "schedule delete": ("nightly",),
    "schedule list": (),
    "schedule pause": (WORD, "--reason", WORD),
    "schedule resume": (WORD,),
    "schedule show": (WORD,),
    "schedule trigger": ("nightly",),
    "session list": ("--all",),
    "session revoke": ("--others",),
    "status": (),
    "up": (),
    "worker start": ("--adapter", "exec", "--name", WORD),
}
ADMIN_COMMANDS: dict[str, Sequence[str]] = {
    "admin keys list": (),
    "admin keys rotate": ("--stolen", WORD),
    "admin maintenance bypass": ("--for", "1h"),
    "admin maintenance off": (),
    "admin maintenance on": ("--notice", WORD),
    "admin org list": ("--person", WORD),
    "admin org restore": (WORD,),
    "admin org set-owner": (WORD, WORD),
    "admin org show": (WORD,),
    "admin policy explain": (WORD, "--org", WORD, "--session", WORD, "--scope", WORD, "--owner", WORD),
    "admin route canary": (WORD,),
    "admin route delete": (WORD,),
    "admin route list": (),
    "admin route rollback": (),
    "admin route set": ("--prefix", WORD, WORD),
    "admin audit export": (HOSTILE_FILE,),
    "admin audit list": ("--actor", WORD),
    "admin audit verify": (),
    "admin database prepare": (HOSTILE_FILE,),
    "admin database sql": (),
    "admin migrate plan": (),
    "admin migrate status": (),
    "admin migrate up": (),
    "admin migrate verify": (),
    "admin session list": (WORD, "--all"),
    "admin session revoke": (WORD, WORD),
    "admin user block": (WORD,),
    "admin user delete": (WORD, "--confirm", WORD),
    "admin user show": (WORD,),
    "admin user unblock": (WORD,),
    "completion": ("bash",),
    "admin secrets new": ("--database", "db.example:5432", HOSTILE_FILE),
}
"""These speak to no site."""
OTHERS_NAMES = {"facts", "keys", "labels", "metadata", "options", "result", "versions"}
"""In JSON: what is signed, and what others have named."""
NOTHING_FOREIGN = {
    "down",
    "invitation decline",
    "invitation revoke",
    "key revoke",
    "member remove",
    "org leave",
    "org switch",
    "receipt keys",
    "request answer",
    "receipt verify",
    "replay verify",
    "run cancel",
    "run send",
    "schedule delete",
    "schedule trigger",
    "session revoke",
    "logout",
}
"""What these say when all is well is our own words, and what has no room for a hostile one."""


@dataclass
class World:
    """Where a command runs: a home, a site, and everything hostile."""

    home: Path
    run: HostileRun
    monkeypatch: pytest.MonkeyPatch

    @property
    def file(self) -> Path:
        return Path(os.fsdecode(os.fsencode(self.home) + b"/" + FILE_NAME))

    def arguments(self, command: str) -> list[str]:
        given = [str(self.file) if each == HOSTILE_FILE else each for each in COMMANDS[command]]
        return [*command.split(), *given]


def world(home: Path, monkeypatch: pytest.MonkeyPatch, *, refusing: bool, with_output: bool) -> World:
    made = World(home, HostileRun(with_output=with_output), monkeypatch)
    monkeypatch.setenv("OA_HOME", str(home / "stack"))
    monkeypatch.setenv("OA_CLIENT_HOME", str(home / "client"))
    monkeypatch.setenv("OA_CONTROL_URL", CONTROL_URL)
    monkeypatch.setenv("COLUMNS", "10000")  # so that no word is broken or cut off
    http = HostileHttp(made.run, refusing=refusing)
    monkeypatch.setattr(HttpxHttp, "post", lambda _, *request: http.post(*request))
    monkeypatch.setattr(Client, "subscription", lambda *_, **__: _Subscription(made.run, refusing))
    client_home = ClientHome(home / "client")
    folder = client_home.site(CONTROL_URL)
    FileCredentialStore(folder).save(Credentials(WORD, WORD, WORD, WORD, "token", 9_999_999_999, "token"))
    made.file.write_bytes(made.run.artifact)
    return made


class _Subscription:
    """Delivers the run, and everything else that can be told of a connection."""

    def __init__(self, run: HostileRun, refusing: bool) -> None:
        self._run = run
        self._refusing = refusing

    async def __aenter__(self) -> _Subscription:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def follow(self, topic: str, *, snapshots: bool = False) -> None:
        pass

    async def updates(self) -> AsyncGenerator[updates.Update, None]:
        topic = run_events(RUN)
        yield updates.Connection(open=False, message=WORD)
        yield updates.Restarted(topic, WORD)
        if self._refusing:
            yield updates.Refused(topic, Refusal("forbidden_topic", WORD, field=WORD))
        for seq, payload in enumerate(self._run.events, start=1):
            yield updates.Applied(topic, Cursor("epoch", seq), payload)


def seen(*outputs: Screen) -> str:
    """What reached the terminal, without our own colours; every other control character fails the test."""
    text = "".join(uncoloured(output.written.decode()) for output in outputs)
    assert visible(text, LAYOUT) == text
    assert not [line for line in text.splitlines() if line.startswith(RUN + " forged")]
    return text


def test_every_command_is_here() -> None:
    assert {*COMMANDS, *ADMIN_COMMANDS} == {" ".join(path[1:]) for path, _ in commands_of(oa, ("oa",))}


@pytest.mark.parametrize("command", ADMIN_COMMANDS)
def test_no_command_for_operators_lets_text_control_a_terminal(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OA_ADMIN_DATABASE_URL", "OA_MIGRATE_DATABASE_URL", "OA_CONTROL_GRPC", "OA_OPERATOR_TOKEN"):
        monkeypatch.setenv(name, WORD)
    out, err = screens(monkeypatch, terminal=True)
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/" + FILE_NAME)
    arguments = [folder if each == HOSTILE_FILE else each for each in ADMIN_COMMANDS[command]]
    for _ in range(2):  # a second time what is there already is named
        run([*command.split(), *arguments])
    assert seen(out, err)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in STACK_COMMANDS])
def test_what_a_site_answers(command: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(tmp_path, monkeypatch, refusing=False, with_output=terminal)
    namespace = f"{WORD}/{WORD}/{ClientHome(tmp_path / 'client').device_id()}"
    if command not in ("run start", "codex"):
        keep(ClientHome(tmp_path / "client").site(CONTROL_URL) / "watermarks.sqlite3", namespace, here.run)
    out, err = screens(monkeypatch, terminal=terminal, stdin=b"1\n")
    status = run(here.arguments(command))
    text = seen(out, err)
    assert status == (1 if command in ("run start", "run tail", "codex") else 0), text
    shown = json.dumps("\x1b[2J")[1:-1] if command == "run result" else SHOWN  # which prints JSON
    assert command in NOTHING_FOREIGN or shown in text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in STACK_COMMANDS])
def test_what_a_site_refuses(command: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(tmp_path, monkeypatch, refusing=True, with_output=False)
    out, err = screens(monkeypatch, terminal=terminal, stdin=b"1\n")
    run(here.arguments(command))
    text = seen(out, err)
    assert SHOWN in text or command in ("replay show", "replay verify", "logout")
    run([*here.arguments(command)[:2], f"--{WORD}"])
    seen(out, err)


@pytest.mark.parametrize("refusing", [True, False])
@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in STACK_COMMANDS])
def test_json_is_visible_and_means_the_same(
    command: str, refusing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(tmp_path, monkeypatch, refusing=refusing, with_output=True)
    out, err = screens(monkeypatch, terminal=True, stdin=b"1\n")
    given = here.arguments(command)
    run([*given[:2], "--json", *given[2:]] if " " in command else [command, "--json", *given[1:]])
    for output in (out, err):
        text = output.written.decode("utf-8")
        assert visible(text, "\n") == text
        documents = [json.loads(line) for line in text.splitlines() if not line.startswith("Code: ")]
        assert WORD not in text
        assert all(isinstance(document, dict) for document in documents)
        assert [name for name in _names(documents) if not OUR_NAME.fullmatch(name)] == []
    if command == "run list" and not refusing:
        assert json.loads(out.written)["title"] == WORD


def _names(value: Any) -> Iterator[str]:
    """The names of all members, except where a document has what others name."""
    if isinstance(value, list):
        for each in value:
            yield from _names(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            if name not in OTHERS_NAMES:
                yield from _names(each)


# ------------------------------------------------------------------------------------------- the stack and workers


def test_oa_up_lets_no_text_control_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, monkeypatch, refusing=False, with_output=False)

    class Stack(SimpleNamespace):
        async def start(self) -> None:
            for change in Change:
                self.on_event(Event(WORD, change, WORD))

        async def stop(self) -> None:
            self.on_event(Event(WORD, Change.STOPPED, WORD))

        async def wait_given_up(self) -> Event:
            return Event(WORD, Change.GAVE_UP, WORD)

        def log_path(self, name: str) -> Path:
            return Path(name)

    urls = {"control": WORD, "khala": WORD}
    monkeypatch.setattr(stack_commands, "Stack", lambda **given: Stack(urls=urls, home=Path(WORD), **given))
    out, err = screens(monkeypatch, terminal=True)
    assert run(["up"]) == Exit.REFUSED
    assert seen(out).count(SHOWN) > 5
    assert SHOWN in seen(err)


def test_oa_status_and_oa_down_let_no_text_control_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, monkeypatch, refusing=False, with_output=False)
    monkeypatch.setenv("OA_CONTROL_URL", CONTROL_URL)
    out, err = screens(monkeypatch, terminal=True)
    assert run(["status"]) == 0
    assert SHOWN in seen(out, err), "who is signed in elsewhere"

    monkeypatch.delenv("OA_CONTROL_URL")
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    ports = dict.fromkeys(("control_ops", "projector_ops"), 1)
    state = StackState(mark, "ready", ports, {"control": WORD, "khala": WORD}, {"control": mark, WORD: mark})
    state_path(tmp_path / "stack").parent.mkdir()
    state_path(tmp_path / "stack").write_text(json.dumps(asdict(state)))

    async def ask(*_: object) -> Answer:
        return Answer(503, json.dumps({"failures": {WORD: WORD}}))

    monkeypatch.setattr(stack_commands, "ask", ask)
    assert run(["status"]) == Exit.UNREACHABLE
    assert "not ready: <" in seen(out, err)

    async def stopped(_: Path) -> bool:
        return True

    monkeypatch.setattr(stack_commands, "stop_running", stopped)
    assert run(["down"]) == 0
    seen(out, err)


def test_oa_worker_start_lets_no_text_control_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, monkeypatch, refusing=False, with_output=False)

    class Worker:
        def __init__(self, name: str, *_: object, notify: Callable[..., None], **__: object) -> None:
            self.notify = notify

        async def run(self) -> None:
            self.notify(Attached(WORD, WORD))
            self.notify(Detached(Refusal("unavailable", WORD, field=WORD), 1))
            self.notify(RunTaken(WORD, 2))
            self.notify(RunLeft(WORD, RunFinished(reason=WORD)))

    monkeypatch.setattr(workers, "Worker", Worker)
    out, err = screens(monkeypatch, terminal=True)
    assert run(["worker", "start", *COMMANDS["worker start"]]) == 0
    assert seen(out).count(SHOWN) > 5
    assert SHOWN in seen(err), "the new service account"


def test_oa_demo_lets_no_text_control_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of the story; what it tells of comes over the ways of the commands above."""
    told = HostileRun(with_output=True)
    out, err = screens(monkeypatch, terminal=True)
    view = View(Output())
    view.process(Event(WORD, Change.DIED, WORD))
    view.signed_in(WORD, WORD, WORD, 6)
    view.worker(WORD, 1)
    view.started(WORD, [WORD])
    for payload in told.events:
        view.event(decode_event(payload))
    view.broke(WORD)
    view.compared([Check(WORD, WORD, WORD, WORD)])
    view.failed([Check(WORD, WORD, "", "other")])
    log = fold(RUN, [Element(seq, data, False) for seq, data in enumerate(told.events, start=1)])
    view.proved(told.receipt, read_facts(told.receipt.canonical_json), log)
    view.staying_up({"control": WORD, "khala": WORD}, WORD, True, WORD)
    assert seen(out, err).count(SHOWN) > 10


def test_a_runs_own_output_is_exact_in_a_pipe_and_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(tmp_path, monkeypatch, refusing=False, with_output=True)
    out, _ = screens(monkeypatch, terminal=True)
    assert run(["run", "start", "--raw", "--", "true"]) == 1
    assert b"\x1b]0;pwned\a\x1b[2J" in out.written
    piped, _ = screens(monkeypatch, terminal=False)
    assert run(["replay", "show", "--key", key(), str(here.file)]) == 0
    assert b"\x1b]0;pwned\a\x1b[2J" in piped.written
