"""What a program gives to the client, and what it gets of a run that can't be followed to its end."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oa_base.at_work import RUN_AT_WORK
from oa_base.refusal import Refusal
from oa_client.core.models import Finish, Run
from oa_client.core.schedules import Cron, Every
from oa_client.edge.commands import Commands
from oa_client.edge.tests.answers import answered, connect_error
from oa_client.follow.tests.fake_gateway import EPOCH, FakeGateway, Fault, Topic
from oa_client.follow.tests.subscribing import Subscribing
from oa_client.sdk.client import Client
from oa_client.sdk.queue import Queue, Retry
from oa_client.sdk.runs import RunCanceled, RunFailed, RunHandle
from oa_client.transport import HttpAnswer
from oa_khala.topics import run_events
from oa_runlog.events import Concurrency, ExecSpec, PromptSpec, RunEvent, RunSpec, Terminal
from oa_runlog.proof.chain import chain_over
from oa_runlog.tests.records import record, text
from oa_runlog.wire.events import decode_event
from oa_testing.logs import logged
from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import ChildFailed
from openagents.control.v1.service_account_service_pb2 import ExchangeKeyRequest, ExchangeKeyResponse
from openagents.control.v1.session_service_pb2 import GetCallerResponse
from openagents.runtime.v1 import event_pb2, run_pb2

ENV = {"OA_CONTROL_URL": "http://127.0.0.1:1", "OA_API_KEY": "oak_1"}
RUN = record([text(b"one\n"), text(b"two\n")])
TOPIC = run_events(RUN.run_id)
LOCAL = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused


class Authority:
    """Answers GetRun with one state after the other; the last one stays."""

    def __init__(self, *finishes: Finish | None) -> None:
        self._finishes = deque(finishes)

    async def run(self, run_id: str) -> Run:
        finish = self._finishes.popleft() if len(self._finishes) > 1 else self._finishes[0]
        return Run(run_id, "", "exec", "running", 0, "", 1, "", finish, {})


def handle(gateway: FakeGateway, *finishes: Finish | None) -> RunHandle:
    return RunHandle(RUN.run_id, cast("Commands", Authority(*finishes)), Subscribing(gateway.url))


@pytest.mark.parametrize("missing", sorted(ENV))
def test_a_variable_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(Refusal) as refused:
        Client.from_env({**ENV, missing: ""})
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", missing)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OA_CONTROL_URL", "127.0.0.1:8080"), ("OA_CA_FILE", "/no/such/file"), ("OA_API_KEY_FILE", "/no/such/file")],
)
def test_a_variable_that_makes_no_sense_is_named(variable: str, value: str) -> None:
    env = {**ENV, variable: value}
    if variable == "OA_API_KEY_FILE":
        del env["OA_API_KEY"]
    with pytest.raises(Refusal) as refused:
        Client.from_env(env)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)
    assert "oak_1" not in str(refused.value)


async def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("oak_1\n", "utf-8")
    env = {"OA_CONTROL_URL": ENV["OA_CONTROL_URL"], "OA_API_KEY_FILE": str(tmp_path / "key")}
    async with Client.from_env(env) as client:
        assert repr(client.run(RUN.run_id)) == f"RunHandle({RUN.run_id})"


async def test_a_key_that_was_rotated_in_its_file_is_taken_from_there(tmp_path: Path) -> None:
    """Without a restart: the token of the old key has ended, and the file has the new one by then."""
    asked: list[str] = []
    ended = connect_error(Refusal("token_revoked", "the key has ended"))

    async def post(url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        if "ExchangeKey" in url:
            asked.append(ExchangeKeyRequest.FromString(body).api_key)
            answer = ExchangeKeyResponse(token=f"token-{len(asked)}")
            answer.expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
            return answered(answer)
        if headers["Authorization"] == "Bearer token-2":
            return answered(GetCallerResponse())
        (tmp_path / "key").write_text("oak_2", "utf-8")
        return HttpAnswer(401, ended)

    (tmp_path / "key").write_text("oak_1", "utf-8")
    env = {"OA_CONTROL_URL": ENV["OA_CONTROL_URL"], "OA_API_KEY_FILE": str(tmp_path / "key")}
    async with Client.from_env(env) as client:
        client._http.post = post  # type: ignore[method-assign]
        await client.caller()
    assert asked == ["oak_1", "oak_2"]


async def test_events_go_on_exactly_after_a_break_and_after_a_seq() -> None:
    faults = deque([Fault(cut_after=2)])
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}, faults).running() as gateway:
        run = handle(gateway, None)
        assert [event.seq async for event in run.events()] == list(range(1, len(RUN.events) + 1))
        assert [event.seq async for event in run.events(after_seq=2)] == list(range(3, len(RUN.events) + 1))
    first, second, *others = gateway.subscribed_from
    assert (first, *others) == (None, None, None)  # a gateway without snapshots: all events are read
    assert second is not None
    assert (second.epoch, second.applied_seq) == (EPOCH, 2)


async def test_who_stops_reading_events_has_no_connection_left() -> None:
    """As soon as the block ends, and not once the garbage is collected."""
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}).running() as gateway:
        before = asyncio.all_tasks()
        async with aclosing(handle(gateway, None).events()) as events:
            async for _ in events:
                break
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks() - before]  # type: ignore[union-attr]
    assert not [name for name in left if name.startswith(("_Link.", "Subscription."))]


def with_snapshot(count: int, floor: int = 0) -> FakeGateway:
    """Has the first `count` events of the run, and a snapshot of it there."""
    state = run_pb2.Run(run_id=RUN.run_id, latest_seq=count, chain_head=chain_over(RUN.run_id, RUN.events[:count]))
    if count == len(RUN.events):
        state.finish.outcome = event_pb2.RUN_OUTCOME_SUCCEEDED
    payload = run_pb2.RunSnapshot(run=state).SerializeToString()
    return FakeGateway(
        {TOPIC: Topic(list(RUN.events[:count]), floor=floor, snapshots={count: (payload, state.chain_head)})}
    )


@pytest.mark.parametrize("after_seq", [1, 2, 3, len(RUN.events) - 1, len(RUN.events), 99])
@pytest.mark.parametrize("count", [3, len(RUN.events)])
async def test_events_after_a_seq_are_asked_for_from_there(count: int, after_seq: int) -> None:
    async with with_snapshot(count).running() as gateway, asyncio.timeout(PATIENCE_S):
        events = handle(gateway, None).events(after_seq=after_seq)
        following = asyncio.ensure_future(_seqs(events))
        while not following.done() and len(gateway.subscribed_from) < 2:
            await asyncio.sleep(0.01)
        gateway.append(TOPIC, RUN.events[count:])
        assert await following == list(range(after_seq + 1, len(RUN.events) + 1))
    asked = [cursor and cursor.applied_seq for cursor in gateway.subscribed_from]
    has_ended = after_seq >= count == len(RUN.events)
    assert asked == ([None] if has_ended else [None, min(after_seq, count)])


async def _seqs(events: AsyncGenerator[RunEvent, None]) -> list[int]:
    return [event.seq async for event in events]


async def test_events_after_a_seq_that_are_in_the_archive_are_refused() -> None:
    async with with_snapshot(len(RUN.events), floor=len(RUN.events)).running() as gateway:
        with pytest.raises(Refusal) as refused:
            await anext(handle(gateway, None).events(after_seq=1))
    assert refused.value.reason == "retention_floor_breach"
    assert "archive" in refused.value.message


async def test_a_log_that_was_replaced_is_not_taken_for_the_same() -> None:
    seqs: list[int] = []

    async def read(run: RunHandle) -> None:
        async for event in run.events():
            seqs.append(event.seq)
            gateway.topics[TOPIC].epoch = "another"

    faults = deque([Fault(cut_after=2)])
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}, faults).running() as gateway:
        with pytest.raises(Refusal) as refused:
            await read(handle(gateway, None))
    assert (seqs, refused.value.reason) == ([1, 2], "epoch_mismatch")


async def test_the_end_of_a_run_is_waited_for_in_a_log_that_was_replaced() -> None:
    done = Finish("succeeded", "", "")
    faults = deque([Fault(cut_after=2)])
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}, faults).running() as gateway:
        waiting = asyncio.create_task(handle(gateway, None, done).result())
        async with asyncio.timeout(PATIENCE_S):
            while not gateway.subscribed_from:
                await asyncio.sleep(0)
        gateway.topics[TOPIC].epoch = "another"
        assert await waiting == done


async def test_a_run_whose_events_are_archived_has_a_result() -> None:
    async with FakeGateway({TOPIC: Topic(list(RUN.events), floor=len(RUN.events))}).running() as gateway:
        done = Finish("succeeded", "", "")
        assert await handle(gateway, None, done).result() == done


@pytest.mark.parametrize(("outcome", "raised"), [("failed", RunFailed), ("canceled", RunCanceled)])
async def test_what_did_not_succeed_is_raised_with_its_reason(
    outcome: str, raised: type[RunFailed] | type[RunCanceled]
) -> None:
    finish = Finish(outcome, "timeout", "it took too long")
    with pytest.raises(raised) as ended:
        await handle(FakeGateway({}), finish).result()
    assert (ended.value.finish, ended.value.reason) == (finish, "timeout")
    assert str(ended.value) == f"{RUN.run_id} {outcome} (timeout): it took too long"


async def test_a_service_that_does_not_know_the_end_yet_is_not_taken_for_success() -> None:
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}).running() as gateway:
        with pytest.raises(Refusal) as refused:
            await handle(gateway, None).result()
    assert refused.value.reason == "unavailable"


class Away(Authority):
    """Refuses calls first, for these reasons."""

    def __init__(self, reasons: list[str], finish: Finish | None) -> None:
        super().__init__(finish)
        self.reasons = deque(reasons)

    async def run(self, run_id: str) -> Run:
        if self.reasons:
            raise Refusal(self.reasons.popleft(), "try again", retry_after_ms=1)
        return await super().run(run_id)


async def test_the_result_is_waited_for_while_the_service_is_away() -> None:
    done = Finish("succeeded", "", "")
    away = Away(["unavailable", "draining", "deadline_exceeded"] * 3, done)
    assert await RunHandle(RUN.run_id, cast("Commands", away), Subscribing("")).result() == done
    assert not away.reasons


@pytest.mark.parametrize("reason", ["not_found", "invalid_api_key", "internal"])
async def test_the_result_is_not_waited_for_where_waiting_does_not_help(reason: str) -> None:
    away = Away([reason], Finish("succeeded", "", ""))
    with pytest.raises(Refusal) as refused:
        await RunHandle(RUN.run_id, cast("Commands", away), Subscribing("")).result()
    assert refused.value.reason == reason


@pytest.mark.parametrize("given", [-1, "3", None, 1.5, 2**70])
async def test_an_after_seq_that_is_no_count_is_refused(given: Any) -> None:
    async with FakeGateway({TOPIC: Topic(list(RUN.events))}).running() as gateway:
        with pytest.raises(Refusal) as refused:
            await anext(handle(gateway, None).events(after_seq=given))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "after_seq")


@pytest.mark.parametrize("copied", [lambda given: pickle.loads(pickle.dumps(given)), copy.copy, copy.deepcopy])  # noqa: S301
@pytest.mark.parametrize(
    "given",
    [
        RunFailed("run_1", Finish("failed", "timeout", "it took too long")),
        RunCanceled("run_1", Finish("canceled", "canceled", "")),
        ChildFailed("run_1", event_pb2.RunFinished(reason="timeout", message="it took too long")),
        Refusal("invalid_value", "no", field="input"),
    ],
)
def test_exceptions_pass_between_processes(given: Exception, copied: Callable[[Exception], Exception]) -> None:
    """A pool of processes, or a queue of tasks, carries what was raised in its worker."""
    found = copied(given)
    assert (type(found), str(found)) == (type(given), str(given))
    assert found.__dict__ == given.__dict__


@pytest.mark.parametrize("copied", [lambda given: pickle.loads(pickle.dumps(given)), copy.deepcopy])  # noqa: S301
@pytest.mark.parametrize("given", [ExecSpec(("true",)), *map(decode_event, RUN.events)], ids=repr)
def test_specs_and_events_pass_between_processes(given: object, copied: Callable[[object], object]) -> None:
    assert copied(given) == given


@dataclass
class Answer:
    text: str


def succeeded(result_json: str) -> RunHandle:
    return handle(cast("FakeGateway", SimpleNamespace(url="")), Finish("succeeded", "", "", result_json=result_json))


async def test_what_an_agent_returned_comes_back_as_its_type() -> None:
    assert await succeeded('{"text": "yes"}').output(Answer) == Answer("yes")
    assert await succeeded("[1, 2]").output(list[int]) == [1, 2]


@pytest.mark.parametrize("result_json", ["", "{}", '{"text": "s3cret", "text2": 1', '{"text": 17}'])
async def test_what_is_no_value_of_the_type_is_refused_without_showing_it(result_json: str) -> None:
    with pytest.raises(Refusal) as refused:
        await succeeded(result_json).output(Answer)
    assert (refused.value.reason, refused.value.field) == ("payload_mismatch", "result_json")
    assert not {"s3cret", "17"} & set(refused.value.message.split())


async def test_a_type_without_a_name_is_one_like_another() -> None:
    optional: Any = int | None
    assert await succeeded("null").output(optional) is None
    with pytest.raises(Refusal, match="payload_mismatch"):
        await succeeded('"x"').output(optional)


async def test_an_input_without_a_form_in_json_is_refused_before_anything_is_sent() -> None:
    async with Client.from_env(ENV) as client:
        for given in (float("nan"), object(), {"text": "\ud800"}):
            with pytest.raises(Refusal) as refused:
                await client.start("hello", given)
            assert (refused.value.reason, refused.value.field) == ("invalid_value", "input")


@pytest.mark.parametrize(
    ("given", "options", "field"),
    [
        (ExecSpec(cast("Any", "ls -l")), {}, "input.argv"),
        (ExecSpec(cast("Any", ("sleep", 5))), {}, "input.argv[1]"),
        (ExecSpec(("env",), environment=cast("Any", {"PORT": 8080})), {}, "input.environment[PORT]"),
        (ExecSpec(("pwd",), working_directory=cast("Any", Path("/"))), {}, "input.working_directory"),
        (ExecSpec(("true",), timeout_ms=cast("Any", 1.5)), {}, "input.timeout_ms"),
        (PromptSpec(cast("Any", None)), {}, "input.text"),
        ({}, {"title": 5}, "title"),
        ({}, {"labels": {"n": 1}}, "labels[n]"),
        ({}, {"queue": Queue(priority=cast("Any", 1.5))}, "queue.priority"),
        ({}, {"queue": Queue(concurrency=Concurrency("key", -1))}, "queue.concurrency.limit"),
        ({}, {"queue": Queue(retry=Retry(failures=2, reasons="agent_error"))}, "queue.retry.reasons"),
        ({}, {"queue": Queue(start_timeout=cast("Any", 60))}, "queue.start_timeout"),
        ({}, {"queue": Queue(not_before=cast("Any", "2026-01-01"))}, "queue.not_before"),
        ({}, {"key": 5}, "key"),
        ({}, {"labels": ["n"]}, "labels"),
        ({}, {"queue": {"priority": 1}}, "queue"),
        ({}, {"queue": Queue(priority=2**31)}, "queue.priority"),
        ({}, {"queue": Queue(retry=cast("Any", {"failures": 2}))}, "queue.retry"),
        ({}, {"queue": Queue(retry=Retry(failures=2**32))}, "queue.retry.failures"),
        ({}, {"queue": Queue(concurrency=cast("Any", "key"))}, "queue.concurrency"),
        (ExecSpec(("env",), environment=cast("Any", None)), {}, "input.environment"),
        (ExecSpec(("cat",), stdin=cast("Any", "text")), {}, "input.stdin"),
        (ExecSpec(("top",), terminal=cast("Any", (80, 24))), {}, "input.terminal"),
        (ExecSpec(("top",), terminal=Terminal(80, -1)), {}, "input.terminal.rows"),
    ],
)
async def test_what_is_of_another_kind_is_refused_by_its_name_before_anything_is_sent(
    given: object, options: dict[str, Any], field: str
) -> None:
    async with Client.from_env(ENV) as client:
        with pytest.raises(Refusal) as refused:
            await client.start("hello", given, **options)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.create_schedule(5, Cron("* * * * *"), "a", {}), "name"),
        (lambda client: client.create_schedule("s", "* * * * *", "a", {}), "timing"),
        (lambda client: client.create_schedule("s", Cron(cast("Any", 5)), "a", {}), "timing.expression"),
        (lambda client: client.create_schedule("s", Every(cast("Any", 60)), "a", {}), "timing.distance"),
        (lambda client: client.create_schedule("s", Every(timedelta(1), cast("Any", "now")), "a", {}), "timing.anchor"),
        (lambda client: client.create_schedule("s", Every(timedelta(1), LOCAL), "a", {}), "timing.anchor"),
        (lambda client: client.create_schedule("s", Every(timedelta(1)), "a", {}, catch_up=60), "catch_up"),
        (lambda client: client.create_schedule("s", Every(timedelta(1)), "a", {}, catch_up=-timedelta(1)), "catch_up"),
        (lambda client: client.schedule(5).pause(), "name"),
        (lambda client: client.schedule("s").pause(5), "reason"),
        (lambda client: client.schedule("s").trigger(key=5), "key"),
        (lambda client: client.schedule("s").backfill("2026", "2027"), "start"),
        (lambda client: client.schedule("s").backfill(LOCAL.replace(tzinfo=UTC), LOCAL), "end"),
        (lambda client: client.run(5).state(), "run_id"),
        (lambda client: client.run("run_1").send("x", key=5), "key"),
        (lambda client: client.run("run_1").answer("r1", option=True), "option"),
        (lambda client: client.run("run_1").cancel(5), "reason"),
    ],
)
async def test_so_it_is_wherever_something_is_given(call: Callable[[Any], Awaitable[object]], field: str) -> None:
    async with Client.from_env(ENV) as client:
        with pytest.raises(Refusal) as refused:
            await call(client)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        ({"khala_url": "khala.example.com"}, "OA_KHALA_URL"),
        ({"khala_url": "https://khala.example.com"}, "OA_KHALA_URL"),
        ({"khala_url": "wss://"}, "OA_KHALA_URL"),
        ({"proxy": "proxy.example.com:3128"}, "OA_PROXY"),
        ({"proxy": "ftp://user:secret@proxy.example.com"}, "OA_PROXY"),
    ],
)
def test_an_address_that_is_none_is_refused_before_it_is_used(given: dict[str, Any], variable: str) -> None:
    """Otherwise a follower would try it forever."""
    with pytest.raises(Refusal) as refused:
        Client("http://127.0.0.1:1", "oak_1", **given)
    assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("khala_url", ["", "ws://127.0.0.1:8090/khala/v1/ws", "wss://[::1]/khala/v1/ws"])
def test_an_address_of_a_gateway_is_taken(khala_url: str) -> None:
    Client("http://127.0.0.1:1", "oak_1", khala_url=khala_url)


@pytest.mark.parametrize(
    "given", [{"control_url": 5}, {"api_key": None}, {"khala_url": 5}, {"proxy": None}, {"compress": "yes"}]
)
def test_a_client_is_made_of_texts(given: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        Client(**{"control_url": "http://127.0.0.1:1", "api_key": "oak_1", **given})
    assert (refused.value.reason, refused.value.field) == ("invalid_value", *given)


class Creating:
    """Creates runs."""

    async def create_run(self, spec: RunSpec, key: str) -> Run:
        return Run(key, "", spec.adapter, "queued", 0, "", 0, "", None, {})


async def test_what_an_agent_starts_so_is_no_child_and_its_log_says_it_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client.from_env(ENV) as client:
        monkeypatch.setattr(client, "_commands", Creating())
        await client.start("a", None, key="run_1")
        assert not logged(caplog, "oa_client"), "in no agent"
        at_work = RUN_AT_WORK.set("run_parent")
        for key in ("run_2", "run_3"):
            assert (await client.start("a", None, key=key)).run_id == key
        RUN_AT_WORK.reset(at_work)
    (said,) = [record.getMessage() for record in logged(caplog, "oa_client")]
    assert "run_2 was started by the agent of run_parent" in said
    assert "run.start_child" in said
