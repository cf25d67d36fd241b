"""An agent from its input to its end: what it says, what it returns, how it fails, and how it is ended."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from datetime import timedelta
from typing import Any

import pydantic
import pytest
from google.protobuf.json_format import MessageToDict
from typing_extensions import TypedDict

from oa_base.refusal import Refusal
from oa_testing.logs import logged
from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import AgentLimits, Run, Worker
from oa_worker.agents.failures import AgentExit, AgentFailure
from oa_worker.agents.tests.rig import Answer, Ask, answers, asked, events_of, finish_of, working
from oa_worker.sdk.limits import WorkerLimits
from oa_worker.tests.fake_runtime import RUN, WORKER, FakeTokens
from openagents.runtime.v1 import event_pb2 as pb

SLOTS = 100
SUCCEEDED, FAILED, CANCELED = pb.RUN_OUTCOME_SUCCEEDED, pb.RUN_OUTCOME_FAILED, pb.RUN_OUTCOME_CANCELED


async def test_what_an_agent_says_stands_in_the_log_in_order() -> None:
    async def support(run: Run[Ask]) -> Answer:
        assert (run.id, run.attempt, run.input) == (RUN, 1, Ask("Größe?", 5))
        async with run.assistant() as out:
            await out.write("Let me ")
            await out.write("see 🌍")
        async with run.tool("search", {"q": "x", "like": Ask("y")}) as call:
            call.result = [1, Answer("found")]
        await run.usage("model-1", input=120, output=340, cached=7)
        await run.verification("spelling", passed=True, detail="none")
        await run.emit("acme.progress", {"percent": 12.5})
        return Answer(out.text)

    like = {"question": "y", "most": 3}
    *said, end = await events_of(support, '{"question": "Größe?", "most": 5}')
    assert b"".join(event.text_delta.data for event in said).decode() == "Let me see 🌍"
    rest = [MessageToDict(event) for event in said if event.WhichOneof("kind") != "text_delta"]
    assert rest == [
        {"message": {"role": "MESSAGE_ROLE_ASSISTANT", "text": "Let me see 🌍"}},
        {
            "toolCall": {
                "callId": "e1-c1",
                "name": "search",
                "arguments": {"q": "x", "like": like},
            }
        },
        {"toolResult": {"callId": "e1-c1", "result": [1, {"text": "found"}]}},
        {"usage": {"model": "model-1", "inputTokens": "120", "outputTokens": "340", "cachedInputTokens": "7"}},
        {"verification": {"name": "spelling", "passed": True, "detail": "none"}},
        {"custom": {"type": "acme.progress", "data": {"percent": 12.5}}},
    ]
    assert end.run_finished.outcome == SUCCEEDED
    assert end.run_finished.result_json == '{"text":"Let me see 🌍"}'


async def test_the_worker_says_what_its_agents_take_and_give() -> None:
    async def described(run: Run[Ask]) -> Answer:
        """Answers a question.

        More for the programmer.
        """
        return Answer("")

    runtime = asked()
    async with working(runtime, described, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    (agent,) = runtime.hellos[0].agents
    assert runtime.hellos[0].adapters == ["a"]
    assert (agent.name, agent.description) == ("a", "Answers a question.")
    assert json.loads(agent.input_schema_json)["required"] == ["question"]
    assert json.loads(agent.output_schema_json)["properties"]["text"]["type"] == "string"


class Model(pydantic.BaseModel):
    """As an input and as a result."""

    names: list[str] = pydantic.Field(min_length=1)


class Typed(TypedDict):
    """The same, with less."""

    names: list[str]


@pytest.mark.parametrize(
    ("stated", "text", "value"),
    [
        (Ask, '{"question":"why","most":3}', Ask("why")),
        (Model, '{"names":["a"]}', Model(names=["a"])),
        (Typed, '{"names":["a"]}', {"names": ["a"]}),
        (dict[str, Any], '{"b":[1,2.5,null],"a":true}', {"b": [1, 2.5, None], "a": True}),
        (list[int], "[1,2]", [1, 2]),
        (str, '"x"', "x"),
        (type(None), "null", None),
    ],
)
async def test_inputs_and_results_are_of_any_type_that_has_a_form_in_json(stated: Any, text: str, value: Any) -> None:
    async def same(run: Run[Any]) -> Any:
        assert run.input == value
        return run.input

    finish = await finish_of(same, text, input=stated, output=stated)
    assert (finish.outcome, finish.result_json) == (SUCCEEDED, text), finish.message


@pytest.mark.parametrize(
    ("stated", "text", "where"),
    [
        (Ask, '{"question": "secret", "most": "secret"}', "$.most"),
        (Ask, '{"secret": "secret"}', "$.question"),
        (Model, '{"names": []}', "$.names"),
        (list[int], '[1, "2"]', "$[1]"),
    ],
)
async def test_an_input_of_another_type_never_reaches_the_function(stated: Any, text: str, where: str) -> None:
    finish = await finish_of(answers, text, input=stated)
    assert (finish.outcome, finish.reason) == (FAILED, "invalid_input")
    assert where in finish.message
    assert "secret" not in finish.message


async def test_a_spec_without_a_json_input_never_reaches_the_function() -> None:
    runtime = asked()
    runtime.specs[RUN] = pb.RunSpec(adapter="a", prompt=pb.PromptSpec(text="why"))
    async with working(runtime, answers, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.reason == "invalid_input"


@pytest.mark.parametrize(
    ("stated", "value"),
    [
        (Answer, Answer(17)),  # type: ignore[arg-type]
        (Answer, {"text": "x"}),
        (Answer, None),
        (Model, Model.model_construct(names=[])),
        (Typed, {}),
        (float, float("nan")),
        (object, object()),
        (str, "\ud800"),
        (dict[str, int], {"a": "x"}),
    ],
)
async def test_a_result_of_another_type_fails_the_run(stated: Any, value: Any) -> None:
    async def wrong(run: Run[Ask]) -> Any:
        return value

    finish = await finish_of(wrong, output=stated)
    assert (finish.outcome, finish.reason, finish.result_json) == (FAILED, "invalid_result", "")


async def test_an_exception_is_said_without_secrets_and_its_traceback_is_the_workers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(run: Run[Ask]) -> Answer:
        raise ValueError("https://me:hunter2@example.org\0 Bearer abc.def \x1b[2J" + "x" * 5000)

    with caplog.at_level(logging.ERROR, "oa_worker"):
        finish = await finish_of(broken)
    assert (finish.outcome, finish.reason) == (FAILED, "agent_error")
    assert finish.message.startswith("ValueError: https://***")
    assert len(finish.message) == AgentLimits().max_failure_chars
    assert not any(hidden in finish.message for hidden in ("hunter2", "abc.def", "\0", "\x1b"))
    (record,) = [record for record in logged(caplog, "oa_worker") if record.exc_info]
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])
    assert record.__dict__["run_id"] == RUN


@pytest.mark.parametrize("within", ["the function", "a step", "a step in a thread", "a step beside others"])
async def test_an_exit_ends_the_run_and_not_the_worker(within: str, caplog: pytest.LogCaptureFixture) -> None:
    def leaves() -> None:
        sys.exit("no such table; token=abc123")

    async def leaves_later() -> None:
        leaves()

    async def agent(run: Run[Ask]) -> Answer:
        match within:
            case "the function":
                leaves()
            case "a step":
                await run.step("leave", leaves_later)
            case "a step in a thread":
                await run.step("leave", leaves)
            case _:
                await asyncio.gather(run.step("stay", asyncio.sleep, 0), run.step("leave", leaves))
        return Answer("")

    with caplog.at_level(logging.ERROR, "oa_worker"):
        finish = await finish_of(agent)
    assert (finish.outcome, finish.reason) == (FAILED, "agent_error")
    said = "an agent can't end its worker; return a result, or raise what is wrong (sys.exit: no such table; token***"
    assert finish.message == f"AgentExit: {said}"
    (record,) = [record for record in logged(caplog, "oa_worker") if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], AgentExit)
    assert isinstance(record.exc_info[1].__cause__, SystemExit), "the log has its traceback, too"


async def test_a_function_that_is_not_async_is_told_so() -> None:
    def plain(run: Run[Ask]) -> Answer:
        return Answer("")

    handler: Any = plain
    finish = await finish_of(handler)
    said = "the agent's function is not async; write `async def`"
    assert (finish.outcome, finish.reason, finish.message) == (FAILED, "agent_error", said)


async def test_a_tool_that_raises_has_failed_and_the_run_with_it() -> None:
    async def broken(run: Run[Ask]) -> Answer:
        async with run.tool("search"):
            raise LookupError("nothing there")

    call, result, end = await events_of(broken)
    assert call.tool_call.call_id == result.tool_result.call_id
    assert (result.tool_result.failed, result.tool_result.result.string_value) == (True, "LookupError: nothing there")
    assert end.run_finished.reason == "agent_error"


def nested(depth: int) -> object:
    return {"a": nested(depth - 1)} if depth else None


@pytest.mark.parametrize(
    ("say", "reason", "field"),
    [
        (lambda run: run.emit("no type"), "invalid_value", "custom.type"),
        (lambda run: run.emit("acme.x", {"a": float("nan")}), "invalid_value", "data"),
        (lambda run: run.emit("acme.x", {"a": object()}), "invalid_value", "data"),
        (lambda run: run.emit("acme.x", {"a": "x" * 300_000}), "payload_too_large", "custom"),
        (lambda run: run.verification("", passed=True), "missing_field", "verification.name"),
        (lambda run: run.assistant().write("a\0b"), "invalid_value", "text"),
        (lambda run: run.usage("m", input=-1), "invalid_value", "input"),
        (lambda run: run.usage("m", output=2**64), "invalid_value", "output"),
        (lambda run: run.usage("m", cached=1.5), "invalid_value", "cached"),
        (lambda run: run.progress("x", done=-1), "invalid_value", "done"),
        (lambda run: run.progress("x", total=0.5), "invalid_value", "total"),
        (lambda run: run.approve("?", deadline=timedelta.max), "invalid_value", "deadline"),
        (lambda run: run.choose("?", []), "missing_field", "options"),
        (lambda run: run.choose("?", ["a", "b", "a"]), "invalid_value", "options"),
        (lambda run: run.choose("?", ["a"], default="b"), "invalid_value", "default"),
        (lambda run: run.sleep(timedelta.max), "invalid_value", "delay"),
        (lambda run: run.save(float("nan")), "invalid_value", "value"),
        (lambda run: run.step("", abs, 1), "missing_field", "name"),
        (lambda run: run.now(""), "missing_field", "name"),
        (lambda run: run.random("x" * 129), "invalid_value", "name"),
        (lambda run: run.sleep(timedelta(0), "a\0"), "invalid_value", "name"),
        (lambda run: run.step("x", abs, object()), "invalid_value", "arguments"),
        (lambda run: run.step("x", lambda: b"\xff"), "invalid_value", "result_json"),
        (lambda run: run.start_child("no name", 1), "invalid_value", "adapter"),
        # What is of another kind, by the name of the argument.
        (lambda run: run.assistant().write(b"a"), "invalid_value", "text"),
        (lambda run: run.assistant().write("\ud800"), "invalid_value", "text"),
        (lambda run: run.tool(None), "invalid_value", "name"),
        (lambda run: run.usage(5), "invalid_value", "model"),
        (lambda run: run.verification("x", passed=True, detail=None), "invalid_value", "detail"),
        (lambda run: run.emit(5), "invalid_value", "type"),
        (lambda run: run.progress(5), "invalid_value", "text"),
        (lambda run: run.approve(5), "invalid_value", "title"),
        (lambda run: run.approve("?", deadline=5), "invalid_value", "deadline"),
        (lambda run: run.choose("?", ["a"], default=5), "invalid_value", "default"),
        (lambda run: run.ask("?", detail=5), "invalid_value", "detail"),
        (lambda run: run.sleep(0.5), "invalid_value", "delay"),
        (lambda run: run.sleep(timedelta(0), 1), "invalid_value", "name"),
        (lambda run: run.now(1), "invalid_value", "name"),
        (lambda run: run.random(b"x"), "invalid_value", "name"),
        (lambda run: run.step(5, abs, 1), "invalid_value", "name"),
        (lambda run: run.step("x", abs(1)), "invalid_value", "function"),
        (lambda run: run.start_child(5, 1), "invalid_value", "agent"),
        (lambda run: run.start_child("a", 1, cancel_with_parent="no"), "invalid_value", "cancel_with_parent"),
        (lambda run: run.emit("acme.x", ["secret"]), "invalid_value", "data"),
        (lambda run: run.emit("acme.x", nested(120)), "invalid_value", "data"),
        (lambda run: run.tool("t", ["secret"]).__aenter__(), "invalid_value", "arguments"),
        # Whole numbers that a double does not hold.
        (lambda run: run.emit("acme.x", {"id": 2**53 + 1}), "invalid_value", "data.id"),
        (lambda run: run.emit("acme.x", {"a": [1, {"id": -(2**53) - 1}]}), "invalid_value", "data.a[1].id"),
        (lambda run: run.emit("acme.x", {"a": 10**400}), "invalid_value", "data.a"),
        (lambda run: run.emit("acme.x", Ask("why", 2**63 - 1)), "invalid_value", "data.most"),
        (lambda run: run.tool("t", {"id": 2**53 + 1}).__aenter__(), "invalid_value", "arguments.id"),
        (lambda run: run.verification("x", passed="yes"), "invalid_value", "passed"),
        (lambda run: run.choose("?", None), "invalid_value", "options"),
        (lambda run: run.choose("?", {"a", "b"}), "invalid_value", "options"),
        (lambda run: run.choose("?", iter(["a"])), "invalid_value", "options"),
        (lambda run: run.receive(range), "invalid_value", ""),
        (lambda run: run.restore(range), "invalid_value", ""),
    ],
)
async def test_what_cant_stand_in_a_log_is_refused_where_it_was_said(say: Any, reason: str, field: str) -> None:
    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(Refusal) as refused:
            await say(run)
        return f"{refused.value.reason} {refused.value.field}"

    *said, end = await events_of(agent, output=str)
    assert (said, json.loads(end.run_finished.result_json)) == ([], f"{reason} {field}")


async def test_a_tools_result_holds_no_whole_number_that_would_change() -> None:
    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(Refusal) as refused:
            async with run.tool("t") as call:
                call.result = [2**53 + 1]
        return refused.value.field

    assert json.loads((await finish_of(agent, output=str)).result_json) == "result[0]"


async def test_whole_numbers_that_a_double_holds_are_stored_as_they_are() -> None:
    numbers = [0, -(2**53), 2**53, 2**60, True]

    async def agent(run: Run[Ask]) -> Answer:
        async with run.tool("t", {"all": numbers}) as call:
            call.result = numbers
        await run.emit("acme.x", {"all": numbers})
        return Answer("")

    call, result, custom, _ = await events_of(agent)
    assert MessageToDict(call)["toolCall"]["arguments"]["all"] == numbers
    assert MessageToDict(result)["toolResult"]["result"] == numbers
    assert MessageToDict(custom)["custom"]["data"]["all"] == numbers


async def test_a_refusal_that_the_agent_lets_go_is_the_runs_reason() -> None:
    async def agent(run: Run[Ask]) -> Answer:
        await run.emit("no type")
        return Answer("")

    finish = await finish_of(agent)
    assert finish.reason == "invalid_value"
    assert finish.message.startswith("custom.type "), "the message names the field"


async def test_a_task_group_is_no_veil_over_the_reason() -> None:
    async def agent(run: Run[Ask]) -> Answer:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run.emit("no type"))
        return Answer("")

    assert (await finish_of(agent)).reason == "invalid_value"


async def test_long_text_becomes_several_messages_of_whole_characters() -> None:
    text = "é🌍x" * 1000

    async def agent(run: Run[Ask]) -> Answer:
        async with run.assistant() as out:
            await out.write(text)
        return Answer(str(out.text == text))

    *said, end = await events_of(agent, limits=AgentLimits(max_message_bytes=1000))
    messages = [event.message.text for event in said if event.HasField("message")]
    assert "".join(messages) == text
    assert all(len(message.encode()) <= 1000 for message in messages)
    assert b"".join(event.text_delta.data for event in said).decode() == text
    assert json.loads(end.run_finished.result_json) == {"text": "True"}


# ------------------------------------------------------------------------------------------------- cancel and loss


async def test_a_cancel_is_a_cancelled_error_in_the_function() -> None:
    begun, heard = asyncio.Event(), asyncio.Event()

    async def patient(run: Run[Ask]) -> Answer:
        begun.set()
        try:
            async with run.assistant() as out:
                await out.write("half")
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.set()
            raise
        return Answer("never")

    runtime = asked()
    async with working(runtime, patient, Ask, Answer), asyncio.timeout(PATIENCE_S):
        await begun.wait()
        runtime.cancel(RUN)
        await heard.wait()
        await runtime.until(lambda: runtime.logs[RUN].finished)
    events = runtime.logs[RUN].events
    assert [event.WhichOneof("kind") for event in events] == ["text_delta", "run_finished"], "no message of a half text"
    assert (events[-1].run_finished.outcome, events[-1].run_finished.reason) == (CANCELED, "canceled")


async def test_a_function_may_finish_its_work_after_a_cancel() -> None:
    begun = asyncio.Event()

    async def polite(run: Run[Ask]) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with run.assistant() as out:
                await out.write("in short: yes")
        return Answer("yes")

    runtime = asked()
    async with working(runtime, polite, Ask, Answer), asyncio.timeout(PATIENCE_S):
        await begun.wait()
        runtime.cancel(RUN)
        await runtime.until(lambda: runtime.logs[RUN].finished)
    finish = runtime.logs[RUN].events[-1].run_finished
    assert (finish.outcome, finish.result_json) == (SUCCEEDED, '{"text":"yes"}')


async def test_a_function_that_cancels_itself_has_failed() -> None:
    async def confused(run: Run[Ask]) -> Answer:
        raise asyncio.CancelledError

    assert (await finish_of(confused)).reason == "agent_error"


async def test_a_function_that_ignores_the_loss_of_its_run_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    begun, let_go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf(run: Run[Ask]) -> Answer:
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return Answer("")

    runtime = asked()
    # Left without its end being waited for: the worker drains although the function still runs.
    async with working(runtime, deaf, Ask, Answer, AgentLimits(stop_timeout_ms=1)), asyncio.timeout(PATIENCE_S):
        await begun.wait()
        runtime.take_lease(RUN)
        await runtime.until(lambda: bool(runtime.held) and runtime.held[-1] == [])
    assert "left behind" in caplog.text
    assert not runtime.logs[RUN].events
    let_go.set()
    await ended.wait()


# ------------------------------------------------------------------------------------------------- the worker


def test_agents_have_names_of_their_own_that_the_contract_takes() -> None:
    worker = Worker("t", FakeTokens(asked()))
    worker.agent("a", input=Ask, output=Answer)(answers)
    with pytest.raises(ValueError, match="already"):
        worker.agent("a", input=Ask, output=Answer)
    with pytest.raises(Refusal, match="name"):
        worker.agent("No Name", input=Ask, output=Answer)(answers)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda worker: worker.agent(5, input=Ask, output=str), "name"),
        (lambda worker: worker.agent("a", input=Ask, output=str, description=5), "description"),
        (lambda worker: worker.agent("a", input=Ask("x"), output=str), ""),
        (lambda worker: worker.agent("a", input=Ask, output=range), ""),
        (lambda worker: worker.agent("a", input=Ask, output=str)(None), "handler"),
        (lambda _: Worker(5, FakeTokens(asked())), "name"),  # type: ignore[arg-type]
        (lambda _: Worker("t", FakeTokens(asked()), slots=0), "slots"),
        (lambda _: Worker("t", FakeTokens(asked()), slots=1_001), "slots"),
        (lambda _: Worker("t", FakeTokens(asked()), slots="8"), "slots"),  # type: ignore[arg-type]
        (lambda _: Worker("t", FakeTokens(asked()), notify=None), "notify"),  # type: ignore[arg-type]
    ],
)
def test_what_a_worker_is_made_of_is_refused_by_its_name(make: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        make(Worker("t", FakeTokens(asked())))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)


async def test_a_worker_within_a_loop_is_told_what_to_await() -> None:
    with pytest.raises(RuntimeError, match=r"await worker.serve\(\)"):
        Worker("t", FakeTokens(asked())).run()


async def test_a_worker_without_an_agent_does_not_start() -> None:
    with pytest.raises(ValueError, match="no agent"):
        await Worker("t", FakeTokens(asked())).serve()


@pytest.mark.parametrize("missing", ["OA_CONTROL_URL", "OA_API_KEY"])
def test_the_environment_says_where_and_who(missing: str) -> None:
    env = {"OA_CONTROL_URL": "http://127.0.0.1:1", "OA_API_KEY": "oak_x"}
    Worker.from_env(slots=8, env=env)
    with pytest.raises(Refusal) as refused:
        Worker.from_env(env={name: value for name, value in env.items() if name != missing})
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", missing)


async def test_the_environment_says_how_long_a_drain_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[WorkerLimits] = []

    class Told:
        def __init__(self, *_: object, limits: WorkerLimits, **more: object) -> None:
            told.append(limits)

        async def run(self) -> None:
            """It ends at once."""

    monkeypatch.setattr("oa_worker.agents.worker.Connection", Told)
    env = {"OA_CONTROL_URL": "http://127.0.0.1:1", "OA_API_KEY": "oak_x"}
    for given in ("", "0", "600"):
        worker = Worker.from_env(env=env | {"OA_WORKER_DRAIN_S": given})
        worker.agent("a", input=Ask, output=Answer)(answers)
        await worker.serve()
    assert [limits.drain_timeout_ms for limits in told] == [WorkerLimits().drain_timeout_ms, 0, 600_000]
    for wrong in ("10 s", "-1", "100000"):
        with pytest.raises(Refusal) as refused:
            Worker.from_env(env=env | {"OA_WORKER_DRAIN_S": wrong})
        assert (refused.value.reason, refused.value.field) == ("invalid_setting", "OA_WORKER_DRAIN_S")


def test_agents_that_block_threads_leave_some_to_the_worker() -> None:
    class Blocked(Worker):
        async def serve(self) -> None:
            go = threading.Event()
            begun = threading.Barrier(SLOTS + 1)

            def block() -> None:
                begun.wait(PATIENCE_S)
                go.wait(PATIENCE_S)

            blocked = [asyncio.create_task(asyncio.to_thread(block)) for _ in range(SLOTS)]
            await asyncio.to_thread(begun.wait, PATIENCE_S)
            go.set()
            await asyncio.gather(*blocked)

    Blocked("test", FakeTokens(asked()), slots=SLOTS).run()


async def test_a_worker_may_run_in_any_thread_and_be_drained_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    class UntilDrained:
        def __init__(self, *_: object, **__: object) -> None:
            self._draining = asyncio.Event()
            self.drain = self._draining.set

        async def run(self) -> None:
            begun.set()
            await self._draining.wait()

    monkeypatch.setattr("oa_worker.agents.worker.Connection", UntilDrained)
    worker = Worker("t", FakeTokens(asked()))
    worker.agent("a", input=Ask, output=Answer)(answers)
    running = asyncio.create_task(asyncio.to_thread(worker.run))
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    worker.drain()
    async with asyncio.timeout(PATIENCE_S):
        await running
    worker.drain()  # of one that has ended


async def test_a_drained_worker_ends_what_it_has() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(run: Run[Ask]) -> Answer:
        begun.set()
        await go_on.wait()
        return Answer("done")

    runtime = asked()
    async with working(runtime, slow, Ask, Answer) as worker, asyncio.timeout(PATIENCE_S):
        await begun.wait()
        worker.drain()
        await runtime.until(lambda: "drain" in runtime.said)
        go_on.set()
        await runtime.until(lambda: "goodbye" in runtime.said)
    assert runtime.logs[RUN].events[-1].run_finished.outcome == SUCCEEDED
    assert WORKER


async def test_an_agent_may_say_with_which_word_it_fails() -> None:
    async def sold_out(run: Run[Ask]) -> Answer:
        raise AgentFailure("sold_out", "there is no tea left; ask for coffee")

    finish = await finish_of(sold_out)
    assert (finish.outcome, finish.reason) == (FAILED, "sold_out")
    assert finish.message == "there is no tea left; ask for coffee"
