"""A real Codex, whose only model is the test's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from oa_testing.peers.codex import ASKING, PROVIDER_KEY
from oa_testing.peers.model_server import PATIENTLY, Call, Fail, ModelServer, Say, Wait
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.codex.tests.rig import Log, assignment, at_work, real
from openagents.runtime.v1 import event_pb2 as pb


async def test_a_turn_of_the_real_codex_succeeds(tmp_path: Path) -> None:
    log = Log()
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model)
        model.script([Say("It is a bird, and no plane.")])
        run = assignment(log, {"prompt": "What is it?", "working_directory": str(tmp_path)})
        finish = await adapter.run(run, log.emit)
        assert model.asked("What is it?")
    assert (finish.outcome, finish.message) == (pb.RUN_OUTCOME_SUCCEEDED, "")
    result = json.loads(finish.result_json)
    assert result["text"] == "It is a bird, and no plane."
    assert log.text() == "It is a bird, and no plane."
    assert log.messages == ["It is a bird, and no plane."]
    assert [word for word in log.kinds if not word.startswith("item")] == [
        "step_completed",
        "turn progress",
        "assistant",
        "message",
        "usage",
        "turn completed",
    ]
    usage = next(event.usage for event in log.events if event.HasField("usage"))
    assert (usage.model, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == ("test-model", 10, 4, 5)
    threads = {event.codex_event.codex_thread_id for event in log.events if event.HasField("codex_event")}
    assert threads - {""} == {result["codex_thread_id"]}, "what comes before the thread has a name names none"


async def test_a_thread_goes_on_and_its_usage_is_counted_once(tmp_path: Path) -> None:
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model)
        model.script([Say("First.")], [Say("Second.")])
        given = {"prompt": "one", "working_directory": str(tmp_path)}
        first = json.loads((await adapter.run(assignment(Log(), given), Log().emit)).result_json)
        log = Log()
        given = {**given, "prompt": "two", "resume": first["codex_thread_id"]}
        second = json.loads((await adapter.run(assignment(log, given), log.emit)).result_json)
        assert "First." in json.dumps(model.requests[1]), "Codex remembers"
    assert second["codex_thread_id"] == first["codex_thread_id"]
    assert (second["text"], log.messages) == ("Second.", ["Second."])
    assert sum(event.usage.input_tokens for event in log.events) == 10


async def test_a_thread_that_this_codex_does_not_have(tmp_path: Path) -> None:
    log = Log()
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        given = {"prompt": "on", "working_directory": str(tmp_path), "resume": "01a21b35-64b2-71c0-992e-7389ae1e34f0"}
        finish = await real(tmp_path, model).run(assignment(log, given), log.emit)
    assert finish.reason == "codex_thread_not_resumed"


@pytest.mark.parametrize(("answer", "made"), [("yes", True), ("no", False)])
async def test_people_decide_about_a_command(tmp_path: Path, answer: str, made: bool) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    log = Log()
    async with ModelServer() as model:
        adapter = real(tmp_path, model)
        model.script([Call("exec_command", {"cmd": "touch made; env", **PATIENTLY})], [Say("So be it.")])
        given = {"prompt": "make it", "working_directory": str(folder), "sandbox": "workspace-write"}
        run = assignment(log, given)
        async with at_work(adapter, run, log) as working:
            await log.until(lambda log: any(event.HasField("request_opened") for event in log.events))
            opened = next(event.request_opened for event in log.events if event.HasField("request_opened"))
            assert (opened.kind, opened.default_option) == (pb.REQUEST_KIND_APPROVAL, "no")
            assert "touch made" in opened.title
            assert str(folder) in opened.detail
            assert not (folder / "made").exists()
            log.answer(opened.request_id, answer)
            finish = await working
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED
    assert (folder / "made").exists() is made
    assert log.receipts == {"r1": "applied" if made else "declined"}
    commands = log.items("commandExecution")
    assert [command["status"] for command in commands] == ["inProgress", "completed" if made else "declined"]
    everything = b"".join(event.SerializeToString() for event in log.events).decode(errors="replace")
    assert ("CODEX_THREAD_ID" in everything) is made, "its environment was shown"
    assert PROVIDER_KEY not in everything, "without the key"


async def test_a_command_can_do_no_more_than_its_sandbox_allows(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        model.script([Call("exec_command", {"cmd": "touch made", **PATIENTLY})], [Say("So be it.")])
        given = {"prompt": "p", "working_directory": str(folder), "sandbox": "read-only", "approval": "never"}
        log = Log()
        finish = await real(tmp_path, model).run(assignment(log, given), log.emit)
        said = json.dumps(model.requests[-1]["input"])
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED
    assert not (folder / "made").exists()
    if "No permissions to create new namespace" in said:
        pytest.skip("this machine lets nobody make a sandbox")
    assert "Read-only file system" in said or "Permission denied" in said, said


async def test_people_are_shown_the_files_that_would_change(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    patch = "*** Begin Patch\n*** Add File: hello.txt\n+good morning\n*** End Patch"
    log = Log(answers={"Change files?": "yes"})
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model)
        model.script(
            [Call("exec_command", {"cmd": f"apply_patch <<'EOF'\n{patch}\nEOF", **PATIENTLY})], [Say("Changed.")]
        )
        finish = await adapter.run(assignment(log, {"prompt": "p", "working_directory": str(folder)}), log.emit)
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED
    opened = next(event.request_opened for event in log.events if event.HasField("request_opened"))
    assert "hello.txt" in opened.detail
    assert "good morning" in opened.detail
    assert (folder / "hello.txt").read_text() == "good morning\n"


ASKS_TITLE = 'booking: Allow the booking MCP server to run tool "ask"?'
FORM = {
    "message": "Who travels?",
    "requestedSchema": {
        "type": "object",
        "properties": {"age": {"type": "integer"}, "seat": {"type": "string", "enum": ["aisle", "window"]}},
        "required": ["age"],
    },
}
TRAVELER = {"age": 7, "seat": "window"}
PAGE = {"mode": "url", "message": "Sign in.", "url": "https://example.org/sign", "elicitationId": "e1"}


async def test_people_answer_what_codex_asks(tmp_path: Path) -> None:
    options = [{"label": "red", "description": "Warm."}, {"label": "blue", "description": "Cold."}]
    questions = [
        {"id": "color", "header": "Color", "question": "Which color?", "options": options},
        {"id": "other", "header": "Other", "question": "And then?", "options": options},
    ]
    log = Log(answers={"Which color?": "2", "And then?": ["0", "green, at last"]})
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model, more=ASKING)
        model.script([Call("request_user_input", {"questions": questions})], [Say("So be it.")])
        finish = await adapter.run(assignment(log, {"prompt": "p", "working_directory": str(tmp_path)}), log.emit)
        told = {"answers": {"color": {"answers": ["blue"]}, "other": {"answers": ["green, at last"]}}}
        (output,) = [item for item in model.requests[1]["input"] if item["type"] == "function_call_output"]
        assert json.loads(output["output"]) == told
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED
    assert log.receipts == {"r1": "applied"}


@pytest.mark.parametrize(
    ("elicit", "answers", "came"),
    [
        (
            FORM,
            {"Who travels?": "yes", "age": "7", "seat": "2"},
            {"action": "accept", "content": {"age": 7, "seat": "window"}},
        ),
        (FORM, {"Who travels?": "no"}, {"action": "decline"}),
        (PAGE, {"open a page of example.org?": "yes"}, {"action": "accept", "content": {}}),
        (PAGE, {"open a page of example.org?": "no"}, {"action": "decline"}),
    ],
)
async def test_people_answer_what_an_mcp_server_asks(
    tmp_path: Path, elicit: dict[str, object], answers: dict[str, str], came: dict[str, object]
) -> None:
    log = Log(answers={ASKS_TITLE: "yes", **{f"booking: {title}": answer for title, answer in answers.items()}})
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model, more=ASKING)
        model.script([Call("ask", {"elicit": elicit}, "mcp__booking")], [Say("So be it.")])
        finish = await adapter.run(assignment(log, {"prompt": "p", "working_directory": str(tmp_path)}), log.emit)
    assert finish.outcome == pb.RUN_OUTCOME_SUCCEEDED
    call = log.items("mcpToolCall")[-1]
    assert json.loads(call["result"]["content"][0]["text"]) == came
    assert list(log.receipts.values()) == ["applied", "applied" if came["action"] == "accept" else "declined"]


async def test_a_tool_of_an_mcp_server_is_not_called_without_a_yes(tmp_path: Path) -> None:
    log = Log(answers={ASKS_TITLE: "no"})
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model, more=ASKING)
        model.script([Call("ask", {"elicit": FORM}, "mcp__booking")], [Say("So be it.")])
        await adapter.run(assignment(log, {"prompt": "p", "working_directory": str(tmp_path)}), log.emit)
    assert log.items("mcpToolCall")[-1]["status"] == "failed"
    assert log.titles == [ASKS_TITLE]
    assert log.receipts == {"r1": "declined"}


async def test_a_cancel_interrupts_the_turn(tmp_path: Path) -> None:
    log, wait = Log(), Wait()
    async with ModelServer() as model:
        adapter = real(tmp_path, model)
        model.script([Say("I begin"), wait])
        run = assignment(log, {"prompt": "go", "working_directory": str(tmp_path)})
        async with at_work(adapter, run, log) as working:
            await log.until(lambda log: "begin" in log.text())
            run.cancel.request("enough", 10_000)
            finish = await working
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_CANCELED, "canceled")
    assert log.kinds[-1] == "turn interrupted"


async def test_what_people_say_reaches_the_turn(tmp_path: Path) -> None:
    log, wait = Log(), Wait()
    async with ModelServer() as model:
        adapter = real(tmp_path, model)
        model.script([Say("I begin"), wait], [Say("As you like.")])
        run = assignment(log, {"prompt": "go", "working_directory": str(tmp_path)})
        async with at_work(adapter, run, log) as working:
            await log.until(lambda log: "begin" in log.text())
            log.send("left, not right")
            log.send({"no": "text"})
            await log.until(lambda log: len(log.receipts) == 2)
            wait.opened.set()
            finish = await working
            assert model.asked("left, not right")
    assert log.receipts == {"input-1": "applied", "input-2": "failed"}
    assert json.loads(finish.result_json)["text"] == "As you like."


async def test_a_turn_that_its_model_fails(tmp_path: Path) -> None:
    log = Log()
    async with ModelServer() as model, asyncio.timeout(PATIENCE_S):
        adapter = real(tmp_path, model)
        model.script([Fail(400)])
        finish = await adapter.run(assignment(log, {"prompt": "p", "working_directory": str(tmp_path)}), log.emit)
    assert finish.reason == "codex_turn_failed"
    assert "the script says no" in finish.message
    assert log.kinds[-1] == "turn failed"
