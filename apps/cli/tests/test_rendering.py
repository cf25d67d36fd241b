"""What a person sees of a run of an agent: its text once, and everything else in lines of their own."""

from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from apps.cli.following.rendering import LineEnds, Note, RunRenderer, Said, Shown, Wrote
from apps.cli.following.tail import TailView
from apps.cli.output import Output, clipped
from apps.cli.terminal import uncoloured
from apps.cli.tests.hostile import screens
from oa_client.core.wire import run_at
from oa_client.follow.items import Began, Broken, Mended, Seen
from oa_runlog import events as ev
from oa_runlog.tests.records import record
from oa_runlog.wire import decode_event
from openagents.runtime.v1 import event_pb2, run_pb2

SAY = ev.MessageRole.ASSISTANT
SPOKEN = ev.TextStream.ASSISTANT
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=30)


def shown(*bodies: ev.EventBody, width: int | None = None) -> list[Shown]:
    renderer = RunRenderer(width)
    return [each for body in bodies for each in renderer.render(body)]


def page(*bodies: ev.EventBody) -> str:
    """What a reader has of it, where a line is ended that was begun."""
    data = b""
    for each in shown(*bodies):
        match each:
            case Wrote(data=piece):
                data += piece
            case LineEnds():
                data += b"" if data.endswith(b"\n") or not data else b"\n"
            case Said(text=text):
                data += text.encode() + b"\n"
            case Note(text=text):
                data += b"[" + text.encode() + b"]\n"
    return data.decode()


def deltas(text: str, cuts: list[int]) -> list[ev.TextDelta]:
    """The text, cut anywhere, also within characters."""
    data = text.encode()
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [ev.TextDelta(SPOKEN, data[a:b]) for a, b in pairwise(ends)]


@given(TEXTS, st.lists(st.integers(0, 100), max_size=8))
@example("", [])
@example("Grüße 你", [3, 4, 9])
def test_a_message_is_shown_once_however_it_was_streamed(text: str, cuts: list[int]) -> None:
    message = ev.Message(SAY, text)
    assert page(*deltas(text, cuts), message).strip() == page(message).strip() == text.strip()


@given(TEXTS, TEXTS, st.lists(st.integers(0, 100), max_size=8))
def test_of_a_message_that_was_begun_the_rest_is_shown(begun: str, rest: str, cuts: list[int]) -> None:
    assert page(*deltas(begun, cuts), ev.Message(SAY, begun + rest)).strip() == (begun + rest).strip()


@given(st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4), st.data())
def test_messages_do_not_run_into_each_other(texts: list[str], data: st.DataObject) -> None:
    bodies: list[ev.EventBody] = []
    for text in texts:
        cuts = data.draw(st.lists(st.integers(0, 60), max_size=4))
        bodies += [*deltas(text, cuts), ev.Message(SAY, text)]
    assert page(*bodies) == "".join(text if text.endswith("\n") else text + "\n" for text in texts)


def test_an_event_of_a_later_release_is_told_of() -> None:
    (shown,) = RunRenderer().render(ev.Unknown())
    assert isinstance(shown, Note)
    assert "newer oa" in shown.text


def test_another_text_than_what_was_streamed_is_shown_whole() -> None:
    said: list[ev.EventBody] = [*deltas("a draft", []), ev.Message(SAY, "the answer")]
    assert page(*said) == "a draft\nthe answer\n"


def test_another_attempt_begins_its_message_anew() -> None:
    started = ev.RunStarted("wrk_1", 2, 2)
    again: list[ev.EventBody] = [*deltas("half", []), started, *deltas("whole", []), ev.Message(SAY, "whole")]
    assert shown(*again)[2:] == [Wrote(SPOKEN, b"whole"), LineEnds(SPOKEN)]


def test_what_an_agent_does_is_one_line_each() -> None:
    lines = shown(
        ev.Message(ev.MessageRole.USER, "Mend it.\nPlease."),
        ev.ToolCall("c1", "read", {"path": "a.py", "lines": 3.0, "deep": [1.5, None, True]}),
        ev.ToolCall("c2", "now"),
        ev.ToolResult("c1", result="text\n", has_result=True),
        ev.ToolResult("c2", failed=True),
        ev.Usage("model-1", 120, 340, 20),
        ev.Usage("", 1, 2),
        ev.Verification("tests", passed=False, detail="2 failed"),
        ev.Custom("acme.progress", {"done": 4.0}),
        ev.RequestOpened("r1", ev.RequestKind.APPROVAL, "Order?", "12.50"),
        ev.RequestOpened("r2", ev.RequestKind.TEXT, "Why?"),
        ev.RequestAnswered("r1", "yes", "", "usr_1"),
        ev.RequestExpired("r2", ""),
        ev.InputReceived("usr_1", '{"say":"hello"}'),
        ev.StepCompleted(3, "quote", bytes(32), '{"price":12.5}'),
        ev.AttemptFailed("wrk_1", 1, 1, ev.RunFinished(ev.Outcome.FAILED, "agent_error", "ValueError: no"), 0),
        ev.ChildStarted("c1", "run_2", "quote"),
        ev.ChildFinished("run_2", ev.RunFinished(ev.Outcome.SUCCEEDED)),
        ev.CheckpointSaved(4, '{"done":3}'),
        ev.ProgressReported("reads\nfiles"),
        ev.ProgressReported("files", 3, 10),
        ev.ProgressReported("files", 0),
        ev.ProgressReported("files", None, 10),
    )
    assert [each.text for each in lines if isinstance(each, Note)] == [
        r"user: Mend it.\nPlease.",
        'calls read {"path":"a.py","lines":3,"deep":[1.5,null,true]}',
        "calls now",
        r'read answered "text\n"',
        "now failed",
        "used model-1: 120 tokens in (20 cached), 340 out",
        "used 1 tokens in, 2 out",
        "check tests failed: 2 failed",
        'acme.progress {"done":4}',
        "asks r1: Order? (12.50) [yes/no]; answer with oa request answer",
        "asks r2: Why? [a text]; answer with oa request answer",
        "usr_1 answers r1: yes",
        "nobody answered r2 in time",
        'usr_1 says {"say":"hello"}',
        'step 3, quote: {"price":12.5}',
        "attempt 1 failed (agent_error) - ValueError: no; the run is tried again",
        "starts child c1, quote: run_2",
        "child run_2 succeeded",
        'checkpoint 4, 10 bytes: {"done":3}',
        r"progress: reads\nfiles",
        "progress: files [3/10]",
        "progress: files [0/?]",
        "progress: files [?/10]",
    ]
    assert len(lines) == 23


@given(st.text(), st.integers(30, 100))
def test_a_line_fits_and_says_what_was_cut(text: str, width: int) -> None:
    line = clipped(text, width)
    whole = clipped(text, None)
    assert cell_len(line) <= width
    if line != whole:
        kept, _, said = line.rpartition("… ")
        assert whole.startswith(kept)
        assert said == f"{len(whole) - len(kept)} more characters"


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_no_line_of_ours_is_glued_to_a_text(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that ends in the middle of a line, then a note, where both meet."""
    out, err = screens(monkeypatch, terminal=terminal)
    output = Output()
    output._out.place = output._err.place = "one terminal"
    told: list[bytes] = []
    for sink in (output._out, output._err):
        monkeypatch.setattr(sink, "write_bytes", lambda data: told.append(bytes(data)))
    view = TailView(output)
    bodies: list[ev.EventBody] = [
        ev.TextDelta(SPOKEN, b"hello"),
        ev.ToolCall("c", "read"),
        ev.TextDelta(ev.TextStream.REASONING, b"hm"),
        ev.TextDelta(SPOKEN, b"there\n"),
        ev.Usage("m", 1, 1),
        ev.TextDelta(ev.TextStream.STDOUT, b"o"),
        ev.TextDelta(ev.TextStream.STDERR, b"e"),
    ]
    run = record(bodies)
    for payload in run.events:
        event = decode_event(payload)
        if not isinstance(event.body, ev.RunCreated | ev.RunStarted):
            view.show(Seen(event, payload, live=True))
    lines = uncoloured(b"".join(told).decode()).splitlines()
    assert lines[:6] == ["hello", "calls read", "hm", "there", "used m: 1 tokens in, 1 out", "oe"]
    assert lines[6].startswith("succeeded")
    assert (out.written, err.written) == (b"", b"")


def test_a_pipe_gets_exactly_what_the_run_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, terminal=False)
    view = TailView(Output())
    for payload in record([ev.TextDelta(ev.TextStream.STDOUT, b"no end of line")]).events:
        view.show(Seen(decode_event(payload), payload, live=True))
    assert out.written == b"no end of line"
    assert b"succeeded" in err.written


def test_a_snapshot_is_how_the_run_stands_and_the_end_of_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, terminal=False)
    message = run_pb2.RunSnapshot(steps=3, totals=run_pb2.RunTotals(text_bytes=2048, messages=1))
    message.run.status, message.run.latest_seq, message.run.attempt = run_pb2.RUN_STATUS_RUNNING, 70, 2
    message.progress.text, message.progress.done, message.progress.total = "files", 3, 10
    stored = record([ev.TextDelta(ev.TextStream.STDOUT, b"the end\n"), ev.Message(ev.MessageRole.USER, "go")]).events
    message.output.append(event_pb2.RunEvent.FromString(stored[2]))
    message.messages.append(event_pb2.RunEvent.FromString(stored[3]))
    TailView(Output()).show(Began(run_at(message.SerializeToString()), live=True))
    assert out.written == b"the end\n"
    state, said = err.written.decode().splitlines()
    assert state.startswith("from event 70: running, attempt 2 · progress: files")
    assert state.endswith("1 messages · 3 steps · 2.0 KiB of output")
    assert said == "user: go"
    message.archived.size_bytes = 9
    TailView(Output()).show(Began(run_at(message.SerializeToString()), live=True))
    assert "its events are in the archive" in err.written.decode()


def test_a_lost_connection_is_two_lines_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, terminal=False)
    view = TailView(Output())
    view.show(Broken("gone"))
    view.show(Mended())
    assert out.written == b""
    assert err.written.decode().splitlines() == [
        "connection lost (gone); it resumes by itself after the last event",
        "connected again",
    ]


def item(kind: str, **content: ev.Json) -> ev.CodexEvent:
    return ev.CodexEvent(ev.CodexItem(kind, content=content))


def test_what_codex_does_is_told_at_its_start_and_at_its_end() -> None:
    changes: ev.Json = [{"path": "a.py", "diff": "+x"}, {"path": "b.py"}, None]
    assert page(
        item("commandExecution", command="make", status="inProgress"),
        item("commandExecution", command="make", status="completed", exitCode=2.0),
        item("commandExecution", command="rm", status="declined", exitCode=None),
        item("fileChange", changes=changes, status="inProgress"),
        item("fileChange", changes=changes, status="completed"),
        item("fileChange", changes="odd", status="failed"),
        item("reasoning", summary=["hm"]),
    ).splitlines() == [
        "[runs make]",
        "[ran make: completed, exit code 2]",
        "[ran rm: declined]",
        "[changes a.py, b.py]",
        "[changed a.py, b.py: completed]",
        "[changed : failed]",
    ]


def test_what_a_command_reads_is_told_by_its_size() -> None:
    spec = ev.RunSpec("exec", ev.ExecSpec(("cat",), stdin=True))
    said = ['"line"', '{"base64":"AP8="}', '{"text":"ab","end":true}', '{"end":true}', '{"from":"tomorrow"}']
    lines = shown(ev.RunCreated("usr_1", "org_1", spec), *(ev.InputReceived("usr_1", text) for text in said))
    assert [each.text for each in lines if isinstance(each, Note)] == [
        "usr_1 writes 5 bytes to the command",
        "usr_1 writes 2 bytes to the command",
        "usr_1 writes 2 bytes to the command, and that is all",
        "usr_1 ends the command's input",
        'usr_1 says {"from":"tomorrow"}',
    ]


def test_a_large_file_for_a_command_is_told_in_few_notes_that_add_up() -> None:
    spec = ev.RunSpec("exec", ev.ExecSpec(("sort",), stdin=True))
    piece = json.dumps({"base64": base64.b64encode(bytes(128 << 10)).decode()})
    said = [*[piece] * 100, '"a line"', '{"end":true}']
    lines = shown(ev.RunCreated("usr_1", "org_1", spec), *(ev.InputReceived("usr_1", text) for text in said))
    assert [each.text for each in lines if isinstance(each, Note)] == [
        "usr_1 writes 128.0 KiB to the command",
        *(f"usr_1 writes {size} more to the command" for size in ("128.0 KiB", "256.0 KiB", "512.0 KiB", "1.0 MiB")),
        *(f"usr_1 writes {size} more to the command" for size in ("2.0 MiB", "4.0 MiB")),
        "usr_1 writes 4.5 MiB more to the command, and that is all",
    ]


def test_the_pieces_of_two_people_are_counted_apart() -> None:
    spec = ev.RunSpec("exec", ev.ExecSpec(("sort",), stdin=True))
    piece = json.dumps({"text": "x" * 5_000})
    said = [("usr_1", piece), ("usr_2", piece), ("usr_1", '"a line"'), ("usr_2", piece), ("usr_2", '{"end":true}')]
    lines = shown(ev.RunCreated("usr_1", "org_1", spec), *(ev.InputReceived(*each) for each in said))
    assert [each.text for each in lines if isinstance(each, Note)] == [
        "usr_1 writes 4.9 KiB to the command",
        "usr_2 writes 4.9 KiB to the command",
        "usr_1 writes 7 bytes to the command",
        "usr_2 writes 4.9 KiB more to the command",
        "usr_2 ends the command's input",
    ]


@pytest.mark.parametrize("stdin", [True, False])
def test_what_is_typed_at_a_terminal_is_shown_by_the_terminal_alone(stdin: bool) -> None:
    """With a note for each key that somebody presses, nobody could read what the command shows."""
    spec = ev.RunSpec("exec", ev.ExecSpec(("sh",), stdin=stdin, terminal=ev.Terminal(80, 24)))
    said = ['{"text":"l"}', '{"text":"s"}', '{"resize":{"columns":132,"rows":43}}', '{"end":true}']
    assert shown(ev.RunCreated("usr_1", "org_1", spec), *(ev.InputReceived("usr_1", text) for text in said)) == []


_TERMINAL = event_pb2.ExecSpec(argv=["sh"], stdin=True, terminal=event_pb2.Terminal(columns=80, rows=24))


@pytest.mark.parametrize(
    ("spec", "notes"),
    [
        (event_pb2.RunSpec(exec=event_pb2.ExecSpec(argv=["sh"], stdin=True)), ["usr_1 writes 7 bytes to the command"]),
        (event_pb2.RunSpec(exec=_TERMINAL), []),
        (event_pb2.RunSpec(agent=event_pb2.AgentSpec(input_json="1")), ['usr_1 says "secret"']),
        (None, ['usr_1 says "secret"']),
    ],
    ids=["command", "terminal", "agent", "a run whose spec is not known"],
)
def test_what_is_said_to_a_run_that_is_followed_from_a_snapshot_on(
    spec: event_pb2.RunSpec | None, notes: list[str]
) -> None:
    renderer = RunRenderer()
    message = run_pb2.RunSnapshot(run=run_pb2.Run(spec=spec, status=run_pb2.RUN_STATUS_RUNNING))
    renderer.begin(run_at(message.SerializeToString()))
    lines = renderer.render(ev.InputReceived("usr_1", '"secret"'))
    assert [each.text for each in lines if isinstance(each, Note)] == notes
