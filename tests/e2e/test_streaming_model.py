"""The example that passes on what a model says, as it is shipped. The only model is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from oa_testing.peers.model_server import (
    CACHED_TOKENS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Break,
    Fail,
    ModelServer,
    Part,
    Say,
    Wait,
)
from oa_testing.stack import StackUnderTest
from openagents import Client, Queue, Refusal, Retry, RunCanceled, RunHandle, events
from openagents.runtime.v1 import event_pb2 as pb
from openagents.testing import Played, play, play_with_deaths
from tests.e2e.callers import caller_of, until_said
from tests.e2e.killed import example, module_of
from tests.e2e.world import RUN_TIMEOUT_S

TALE = "Once upon a time. "


def settings_of(model: ModelServer) -> dict[str, str]:
    """What the example finds in its environment, beside what every worker does."""
    return {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "k", "OPENAI_MODEL": "m", "NO_PROXY": "127.0.0.1"}


def the_example(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module, in this process."""
    site = {"OA_CONTROL_URL": "http://127.0.0.1:9", "OA_API_KEY": "oak_test"}
    return module_of("streaming_model.py", settings_of(model) | site, monkeypatch)


def messages_of(said: Sequence[pb.EventBody]) -> list[str]:
    return [event.message.text for event in said if event.HasField("message")]


async def asked(module: ModuleType) -> Played[object]:
    return await play(module.ask, module.Question("tell"))


async def test_an_answer_is_said_as_it_comes_and_its_tokens_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer() as model:
        model.script([Say(TALE), Say("Grüße")])
        module = the_example(model, monkeypatch)
        played = await asked(module)
    assert played.result == module.Answer(f"{TALE}Grüße")
    assert len([event for event in played.events if event.HasField("text_delta")]) == 5, "one for each word"
    assert messages_of(played.events) == [f"{TALE}Grüße"]
    (used,) = (event.usage for event in played.events if event.HasField("usage"))
    assert used == pb.Usage(
        model="m", input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, cached_input_tokens=CACHED_TOKENS
    )
    (request,) = model.requests
    assert request == {"model": "m", "input": "tell", "stream": True}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([Fail(429)], "rate_limited"),
        ([Fail(500)], "unavailable"),
        ([Fail(401)], "invalid_value"),
        ([Say(TALE), Break()], "unavailable"),
        ([Say(TALE), Wait()], "deadline_exceeded"),
    ],
)
async def test_a_failure_has_a_reason(reply: Sequence[Part], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer() as model:
        model.script(reply)
        module = the_example(model, monkeypatch)
        if reason == "deadline_exceeded":
            monkeypatch.setattr(module, "SILENCE_S", 0.1)
        played = await asked(module)
    assert (played.finish.outcome, played.finish.reason) == (pb.RUN_OUTCOME_FAILED, reason)
    assert TALE.startswith(played.text), "what was said stays"
    assert messages_of(played.events) == [], "and is no message"


async def test_a_server_that_is_away_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer() as model:
        module = the_example(model, monkeypatch)
    assert (await asked(module)).finish.reason == "unavailable"


async def test_whatever_dies_a_whole_answer_is_paid_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    paid: list[int] = []
    async with ModelServer() as model:
        module = the_example(model, monkeypatch)
        model.script(*[[Say("Once upon")] for _ in range(30)])
        async for played in play_with_deaths(module.ask, module.Question("tell")):
            assert (played.result, played.steps) == (module.Answer("Once upon"), ["answer"])
            paid.append(len(model.requests) - sum(paid))
    # Before and after each of two pieces, the message, the tokens and the step; only the step makes it once.
    assert paid == [*[2] * 9, 1, 1]


async def passed_on(module: ModuleType, *pieces: bytes) -> tuple[str, object]:
    """What is written of an answer that comes in these pieces, and its tokens or the reason why there are none."""
    said: list[str] = []

    async def write(text: str) -> None:
        said.append(text)

    async def content() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    try:
        used = await module.pass_on(httpx.Response(200, content=content()), write)
    except Refusal as refusal:
        return "".join(said), refusal.reason
    return "".join(said), used


async def test_an_answer_may_come_in_any_pieces_and_must_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer() as model:
        module = the_example(model, monkeypatch)
    delta = 'event: x\r\ndata: {"type": "response.output_text.delta", "delta": "a\u2028b"}\r\n\r\n'.encode()
    end = b'data: {"type": "response.completed",\ndata: "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}'
    answer = delta + b": nothing\n\n" + end + b"\n\n"
    whole = ("a\u2028b", {"input": 1, "output": 2, "cached": 0})
    assert [await passed_on(module, answer[:cut], answer[cut:]) for cut in range(len(answer))] == [whole] * len(answer)
    assert await passed_on(module, delta, end) == ("a\u2028b", "unavailable"), "it is cut off within its last event"
    for how, reason in (("response.failed", "unavailable"), ("response.incomplete", "invalid_value")):
        ends = b'data: {"type": "%b"}\n\n' % how.encode()
        assert await passed_on(module, delta, ends) == ("a\u2028b", reason)
    monkeypatch.setattr(module, "MAX_EVENT_BYTES", 9)
    assert await passed_on(module, b"data: 1234") == ("", "payload_too_large")


async def test_watchers_a_server_that_dies_and_a_cancel(stack: StackUnderTest, scratch: Path) -> None:
    retried = Queue(retry=Retry(failures=100, delay=timedelta(milliseconds=50), max_delay=timedelta(seconds=1)))
    async with ModelServer() as model, caller_of(stack, scratch) as caller, Client.from_env(caller.env) as client:
        wait = Wait()
        model.script([Say(TALE), wait, Say("The end.")], [Say(TALE), Wait()])
        caller.env |= settings_of(model)
        async with example(caller, "streaming_model.py"), asyncio.timeout(RUN_TIMEOUT_S):
            run = await client.start("ask", {"text": "tell"})
            await until_said(run, TALE)  # though the model has not ended
            wait.opened.set()
            assert await run.output(dict[str, str]) == {"text": f"{TALE}The end."}

            run = await client.start("ask", {"text": "again"}, queue=retried)
            await until_said(run, TALE)
            await model.stop()
            await until_failed(run)
            async with ModelServer(model.port) as back:
                back.script([Say("Now it ends.")], [Say("I begin"), wait := Wait()])
                assert await run.output(dict[str, str]) == {"text": "Now it ends."}
                seen = [event.body async for event in run.events()]
                assert [body.text for body in seen if isinstance(body, events.Message)] == ["Now it ends."]
                failed = {body.failure.reason for body in seen if isinstance(body, events.AttemptFailed)}
                assert failed == {"unavailable"}

                run = await client.start("ask", {"text": "and once more"})
                await until_said(run, "begin")
                await run.cancel("enough")
                with pytest.raises(RunCanceled):
                    await run.result()
                await wait.left.wait()


async def until_failed(run: RunHandle) -> None:
    async for event in run.events():
        if isinstance(event.body, events.AttemptFailed):
            return
