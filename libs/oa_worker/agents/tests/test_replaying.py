"""Recorded runs show whether today's code still does what it did; nothing that they have a result of is called."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_runlog import events as ev
from oa_runlog.proof.replay import ReplayReader, artifact_lines
from oa_runlog.tests import values
from oa_runlog.tests.records import stored
from oa_runlog.wire import decode_event
from oa_worker.agents import Run, Worker
from oa_worker.agents.limits import AgentLimits
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.replays.replaying import Agent, replay, replay_folder
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.recordings import artifact, recorded, stored_of
from oa_worker.agents.tests.rig import Answer, Ask
from oa_worker.tests.fake_runtime import FakeRuntime, FakeTokens

CALLS: list[str] = []


def note(what: str) -> str:
    """What a step does: something that a test sees."""
    CALLS.append(what)
    return what.upper()


@pytest.fixture(autouse=True)
def calls() -> list[str]:
    CALLS.clear()
    return CALLS


async def shop(run: Run[Ask]) -> Answer:
    """Steps, a question, what somebody says, and a wait."""
    price = await run.step("quote", note, run.input.question)
    if not await run.approve("Buy?"):
        return Answer("no")
    word = await run.receive(str)
    await run.sleep(timedelta(milliseconds=1))
    return Answer(f"{price} {word} {await run.step('charge', note, 'money')}")


WELL = 'the end of the run, succeeded {"text":"TEA please MONEY"}'
INPUTS, ANSWERS = ["please"], {"Buy?": "yes"}


async def of_the_shop(**more: Any) -> RecordedRun:
    played = await play(shop, Ask("tea"), inputs=INPUTS, answers=ANSWERS)
    assert played.result == Answer("TEA please MONEY")
    CALLS.clear()
    return recorded(played, Ask("tea"), inputs=INPUTS, **more)


async def test_the_same_code_is_the_same_and_calls_nothing(calls: list[str]) -> None:
    replayed = await replay(shop, await of_the_shop())
    replayed.check(whole=True)
    assert (replayed.is_same, replayed.stopped, calls) == (True, "", [])
    assert str(replayed).endswith(" is the same")


async def test_whatever_died_when_it_was_recorded(calls: list[str]) -> None:
    async for played in play_with_deaths(shop, Ask("tea"), inputs=INPUTS, answers=ANSWERS):
        calls.clear()
        (await replay(shop, recorded(played, Ask("tea"), inputs=INPUTS))).check(whole=True)
        assert calls == []


async def lets_others_work(run: Run[Ask]) -> Answer:
    """Two children, whose ends are awaited in the other order."""
    first = await run.start_child("quote", run.input.question)
    second = await run.start_child("stock", None)
    left = await second.result(int)
    return Answer(f"{left} for {await first.result(str)}")


async def other_child(run: Run[Ask]) -> Answer:
    await run.start_child("price", run.input.question)
    return Answer("")


async def one_child_less(run: Run[Ask]) -> Answer:
    first = await run.start_child("quote", run.input.question)
    return Answer(f"3 for {await first.result(str)}")


async def test_children_are_those_that_were_recorded() -> None:
    played = await play(lets_others_work, Ask("tea"), children={"quote": "12.50", "stock": 3})
    run = recorded(played, Ask("tea"))
    (await replay(lets_others_work, run)).check(whole=True)
    other = (await replay(other_child, run)).divergence
    assert other is not None
    assert (other.recorded, other.asked) == ("child c1, 'quote'", "child c1, 'price'")
    less = (await replay(one_child_less, run)).divergence
    assert less is not None
    assert less.recorded == "child c2, 'stock'"


async def test_a_run_that_waits_for_its_child_is_followed_as_far_as_it_goes() -> None:
    played = await play(lets_others_work, Ask("tea"), children={"quote": "12.50", "stock": 3})
    replayed = await replay(lets_others_work, recorded(played, Ask("tea"), upto=3))
    assert replayed.is_same
    assert replayed.stopped == "the end of run_00000000000000000000000002"


async def other_name(run: Run[Ask]) -> Answer:
    await run.step("price", note, run.input.question)
    return Answer("")


async def other_arguments(run: Run[Ask]) -> Answer:
    await run.step("quote", note, "coffee")
    return Answer("")


async def other_question(run: Run[Ask]) -> Answer:
    await run.step("quote", note, run.input.question)
    await run.approve("Really?")
    return Answer("")


async def other_kind(run: Run[Ask]) -> Answer:
    await run.step("quote", note, run.input.question)
    await run.choose("Buy?", ["yes", "no"])
    return Answer("")


async def question_first(run: Run[Ask]) -> Answer:
    await run.approve("Buy?")
    await run.step("quote", note, run.input.question)
    return Answer("")


async def one_step_more(run: Run[Ask]) -> Answer:
    await run.step("quote", note, run.input.question)
    await run.step("stock", note, run.input.question)
    return Answer("")


async def ends_early(run: Run[Ask]) -> Answer:
    await run.step("quote", note, run.input.question)
    await run.approve("Buy?")
    return Answer("TEA please MONEY")


async def hears_twice(run: Run[Ask]) -> Answer:
    answer = await shop(run)
    return Answer(answer.text + await run.receive(str))


async def asks_once_more(run: Run[Ask]) -> Answer:
    answer = await shop(run)
    await run.ask("And how was it?")
    return answer


async def other_result(run: Run[Ask]) -> Answer:
    return Answer((await shop(run)).text.lower())


async def fails(run: Run[Ask]) -> Answer:
    await shop(run)
    raise ValueError("no")


def other_type(what: str) -> int:
    return 17


async def other_type_of_a_step(run: Run[Ask]) -> Answer:
    return Answer(str(await run.step("quote", other_type, run.input.question)))


@pytest.mark.parametrize(
    ("today", "seq", "ordinal", "has", "asks"),
    [
        (other_name, 4, 1, "step 1, 'quote'", "step 1, 'price'"),
        (other_arguments, 4, 1, "step 1, 'quote'", "step 1, 'quote' with other arguments"),
        (other_question, 5, 1, "request r1, 'Buy?'", "request r1, 'Really?'"),
        (
            other_kind,
            5,
            1,
            "request r1, 'Buy?'",
            "request r1, 'Buy?' of another kind or with other options",
        ),
        (question_first, 4, 1, "step 1, 'quote'", "request r1, 'Buy?'"),
        (one_step_more, 7, 2, "step 2, 'sleep'", "step 2, 'stock'"),
        (ends_early, 7, 0, "step 2, 'sleep'", WELL),
        (hears_twice, 9, 2, WELL, "input 2"),
        (
            asks_once_more,
            9,
            2,
            WELL,
            "request r2, 'And how was it?'",
        ),
        (
            other_result,
            9,
            0,
            WELL,
            'the end of the run, succeeded {"text":"tea please money"}',
        ),
        (
            fails,
            9,
            0,
            WELL,
            "the end of the run, failed agent_error: ValueError: no",
        ),
    ],
)
async def test_the_first_divergence_is_told(
    today: Any, seq: int, ordinal: int, has: str, asks: str, calls: list[str]
) -> None:
    replayed = await replay(today, await of_the_shop())
    diverged = replayed.divergence
    assert diverged is not None
    assert (diverged.seq, diverged.ordinal, diverged.recorded, diverged.asked) == (seq, ordinal, has, asks)
    assert calls == []
    with pytest.raises(AssertionError, match=f"diverges at seq {seq}: the log has "):
        replayed.check()


@pytest.mark.parametrize(
    ("then", "now", "is_same"),
    [(1, True, False), ([0], [False], False), ({"a": 1}, {"a": True}, False), (1, 1.0, True), ([True], [True], True)],
)
async def test_a_truth_is_no_number(then: object, now: object, is_same: bool) -> None:
    def returning(result: object) -> Agent:
        async def agent(run: Run[Ask]) -> Any:
            return result

        return agent

    played = await play(returning(then), Ask("why"))  # type: ignore[arg-type]  # a worker is no function
    assert (await replay(returning(now), recorded(played, Ask("why")))).is_same is is_same


async def test_a_result_that_is_not_of_todays_type_is_a_divergence() -> None:
    diverged = (await replay(other_type_of_a_step, await of_the_shop())).divergence
    assert diverged is not None
    assert (diverged.seq, diverged.ordinal) == (4, 1)
    assert diverged.asked == "step 1, 'quote' with a result of another type ($: Input should be a valid integer)"


async def test_a_divergence_that_the_code_swallows_is_told_all_the_same() -> None:
    async def swallows(run: Run[Ask]) -> Answer:
        with suppress(Exception):
            await run.step("price", note, "x")
        return Answer("TEA please MONEY")

    replayed = await replay(swallows, await of_the_shop(), input=Ask, output=Answer)
    assert replayed.divergence is not None
    assert replayed.divergence.seq == 4


@pytest.mark.parametrize(
    ("upto", "stopped"),
    [
        (0, "step 1, 'quote'"),
        (1, "request r1, 'Buy?'"),
        (2, "the answer to request r1, 'Buy?'"),
        (3, "step 2, 'sleep'"),
        (4, "step 3, 'charge'"),
        (5, ""),
    ],
)
async def test_an_unfinished_log_is_followed_as_far_as_it_goes(upto: int, stopped: str, calls: list[str]) -> None:
    replayed = await replay(shop, await of_the_shop(upto=upto))
    replayed.check()
    assert (replayed.stopped, calls) == (stopped, [])
    if stopped:
        with pytest.raises(AssertionError, match="it has no result of"):
            replayed.check(whole=True)


async def test_a_divergence_before_the_logs_end_is_one_also_if_the_run_goes_on() -> None:
    assert (await replay(question_first, await of_the_shop(upto=3))).divergence is not None
    assert (await replay(ends_early, await of_the_shop(upto=4))).divergence is not None


async def cautious(run: Run[Ask]) -> Answer:
    """A step that raises has no result in the log, and the function goes on."""
    with suppress(ConnectionError):
        await run.step("fetch", away)
    return Answer(await run.step("note", note, "x"))


async def away() -> str:
    CALLS.append("away")
    raise ConnectionError("away")


async def hopeless(run: Run[Ask]) -> Answer:
    return Answer(await run.step("fetch", away))


async def careless(run: Run[Ask]) -> Answer:
    try:
        return Answer(await run.step("fetch", away))
    except ConnectionError:
        return Answer("without")


@pytest.mark.parametrize("agent", [cautious, hopeless])
async def test_a_step_that_raised_then_stops_the_replay_unless_it_is_said_what(agent: Any, calls: list[str]) -> None:
    log = recorded(await play(agent, Ask("x")), Ask("x"))
    calls.clear()
    replayed = await replay(agent, log)
    assert (replayed.is_same, replayed.stopped) == (True, "step 1, 'fetch'")
    (await replay(agent, log, raised={"fetch": ConnectionError("away")})).check(whole=True)
    assert calls == []


async def test_where_a_step_may_be_new_or_have_raised_it_is_told_and_how_to_say_so() -> None:
    log = recorded(await play(careless, Ask("x")), Ask("x"))
    diverged = (await replay(careless, log)).divergence
    assert diverged is not None
    assert "did the step raise" in str(diverged)
    (await replay(careless, log, raised={"fetch": ConnectionError("away")})).check(whole=True)


async def goes_on_alone(run: Run[Ask]) -> Answer:
    """Whose child, and whose question, is refused in the first place."""
    with suppress(Refusal):
        await run.start_child("helper", run.input.question)
    with suppress(Refusal):
        await run.approve("Buy?", deadline=timedelta(days=10**7))
    return Answer(await run.step("note", note, "x"))


async def goes_on_with_another(run: Run[Ask]) -> Answer:
    with suppress(Refusal):
        await run.start_child("helper", run.input.question)
    return Answer(await (await run.start_child("quote", None)).result(str))


async def asks_again(run: Run[Ask]) -> Answer:
    with suppress(Refusal):
        await run.approve("Buy?", deadline=timedelta(days=10**7))
    return Answer(str(await run.approve("Buy for less?")))


async def fails_without(run: Run[Ask]) -> Answer:
    await run.start_child("helper", run.input.question)
    return Answer("")


REFUSED = {name: Refusal("invalid_value", "no; leave it") for name in ("helper", "Buy?")}


@pytest.mark.parametrize("agent", [goes_on_alone, goes_on_with_another, asks_again, fails_without])
async def test_what_was_refused_has_no_trace_in_the_log_and_may_be_named(agent: Any) -> None:
    log = recorded(await play(agent, Ask("x"), children={"quote": "12.50"}), Ask("x"))
    (await replay(agent, log, raised=REFUSED)).check(whole=True)


@pytest.mark.parametrize("agent", [goes_on_with_another, asks_again, fails_without])
async def test_what_must_have_been_refused_is_no_divergence(agent: Any) -> None:
    log = recorded(await play(agent, Ask("x"), children={"quote": "12.50"}), Ask("x"))
    replayed = await replay(agent, log)
    assert replayed.is_same
    assert replayed.stopped in ("child c1, 'helper'", "request r1, 'Buy?'")


async def test_where_something_may_be_new_or_was_refused_it_is_told_and_how_to_say_so() -> None:
    log = recorded(await play(goes_on_alone, Ask("x")), Ask("x"))
    child = (await replay(goes_on_alone, log)).divergence
    question = (await replay(goes_on_alone, log, raised={"helper": REFUSED["helper"]})).divergence
    assert "was the child refused" in str(child)
    assert "under the name of its agent" in str(child)
    assert "was the question refused" in str(question)
    assert "under its title" in str(question)


async def test_branches_that_go_on_at_once_come_to_the_same_places() -> None:
    turns = {name: asyncio.Event() for name in "bca"}
    turns["b"].set()

    async def letter(name: str) -> str:
        await turns[name].wait()
        return name

    async def branch(run: Run[Ask], name: str, follower: str) -> str:
        first = await run.step(name, letter, name)
        second = await run.step(f"{name} again", note, name)
        turns[follower].set()
        return first + second

    async def together(run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(*(branch(run, *names) for names in ("ab", "bc", "ca"))))

    log = recorded(await play(together, Ask("x")), Ask("x"))
    order = [event.body.name for event in log.events if isinstance(event.body, ev.StepCompleted)]
    assert order == ["b", "b again", "c", "c again", "a", "a again"], "told apart by the order of their beginning"
    (await replay(together, log, input=Ask, output=list[str])).check(whole=True)


async def test_a_run_that_no_worker_ended_says_nothing_of_the_codes_end() -> None:
    lost = [decode_event(data) for data in stored_of(await play(shop, Ask("tea")), Ask("tea"), upto=1)]
    lost += [
        decode_event(data)
        for data in stored(
            [ev.ExecutorLost(values.WORKER_ID, 1, 1, False), ev.RunFinished(ev.Outcome.FAILED, "executor_lost")],
            leases=[0, 0],
        )
    ]
    run = RecordedRun.of(event._replace(seq=seq) for seq, event in enumerate(lost, start=1))
    replayed = await replay(shop, run)
    assert (replayed.is_same, replayed.stopped) == (True, "request r1, 'Buy?'")


# ------------------------------------------------------------------------------------------------- files


async def shop_file(file: Path, agent: str = "a") -> Path:
    played = await play(shop, Ask("tea"), inputs=INPUTS, answers=ANSWERS)
    return artifact(file, stored_of(played, Ask("tea"), INPUTS, agent))


def a_worker() -> Worker:
    worker = Worker("t", FakeTokens(FakeRuntime({})))
    worker.agent("a", input=Ask, output=Answer)(shop)
    worker.agent("b", input=Ask, output=Answer)(other_name)
    return worker


async def test_a_folder_of_files_goes_to_the_workers_agents(tmp_path: Path, calls: list[str]) -> None:
    await shop_file(tmp_path / "2.oareplay")
    await shop_file(tmp_path / "1.oareplay", "b")
    (tmp_path / "notes.txt").write_text("of no run", "utf-8")
    calls.clear()
    one, two = await replay_folder(a_worker(), tmp_path)
    assert [one.recorded.source, two.recorded.source] == ["1.oareplay", "2.oareplay"]
    two.check(whole=True)
    with pytest.raises(AssertionError, match=r"^1\.oareplay diverges at seq 4: the log has step 1, 'quote'; now it is"):
        one.check()
    assert calls == []


async def test_an_empty_folder_is_no_test(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="oa replay save"):
        await replay_folder(shop, tmp_path)


async def test_a_run_of_another_agent_is_refused(tmp_path: Path) -> None:
    file = await shop_file(tmp_path / "1.oareplay", "elsewhere")
    agents: list[tuple[Agent, str]] = [(a_worker(), ""), (shop, "a")]
    for agent, name in agents:
        with pytest.raises(Refusal, match=r"1\.oareplay is a run of the agent elsewhere; .*a") as refused:
            await replay(agent, file, name=name)
        assert refused.value.reason == "invalid_value"
    file = await shop_file(tmp_path / "2.oareplay", "b")
    with pytest.raises(Refusal, match="of the agent b"):
        await replay(a_worker(), file, name="a")


async def test_the_run_of_a_command_is_none_of_an_agent() -> None:
    created = ev.RunCreated(values.USER_ID, values.ORG_ID, ev.RunSpec("exec", ev.ExecSpec(("ls",))))
    with pytest.raises(Refusal, match="'exec', which is no agent"):
        RecordedRun.of(decode_event(data) for data in stored([created], leases=[0]))


def _without_line(data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:at] + lines[at + 1 :])


def _changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "artifact_malformed"),
        (lambda data: b"hello\n", "artifact_malformed"),
        (lambda data: bytes(1000), "tail_cut"),
        (lambda data: bytes.fromhex("28b52ffd") + data, "artifact_malformed"),
        (lambda data: data[:-40], "tail_cut"),
        (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "tail_cut"),
        (
            lambda data: b"".join(data.splitlines(keepends=True)[:3] + data.splitlines(keepends=True)[4:]),
            "event_missing",
        ),
        (lambda data: _changed(data, data.index(b'"event":"') + 40), "chain_mismatch"),
        (lambda data: data.replace(b'"count":9', b'"count":8'), "sequence_broken"),
        (lambda data: data + b"\n", "artifact_malformed"),
    ],
)
async def test_what_is_no_artifact_or_was_changed_is_refused_by_name(tmp_path: Path, spoil: Any, reason: str) -> None:
    file = await shop_file(tmp_path / "run.oareplay")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(Refusal) as refused:
        await replay_folder(shop, tmp_path)
    assert (refused.value.reason, refused.value.field) == (reason, "run.oareplay")
    assert refused.value.message.startswith("run.oareplay: ")


async def test_a_receipt_that_was_made_of_other_events_is_refused(tmp_path: Path) -> None:
    """Whoever changes an event may make chain and hashes anew, but not what the receipt states."""
    file = await shop_file(tmp_path / "run.oareplay")
    reader = ReplayReader(iter(file.read_bytes().splitlines(keepends=True)))
    data = [one.data for one in reader.events()]
    receipt = reader.receipt()
    data[3] = data[3].replace(b"TEA", b"TEE")
    file.write_bytes(b"".join(artifact_lines(receipt, data)))
    with pytest.raises(Refusal) as refused:
        await replay(shop, file)
    assert refused.value.reason == "chain_mismatch"


async def test_what_is_no_log_is_refused() -> None:
    run = await of_the_shop()
    for events in ([], run.events[1:], [*run.events[:3], *run.events[4:]]):
        with pytest.raises(Refusal) as refused:
            RecordedRun.of(events)
        assert refused.value.reason == "outcome_mismatch"


async def test_a_run_is_taken_from_the_service_as_far_as_it_goes() -> None:
    run = await of_the_shop(upto=1)

    class State:
        latest_seq = 3

    class Handle:
        async def state(self) -> State:
            return State()

        async def events(self) -> Any:
            for event in run.events:
                yield event
            await asyncio.get_running_loop().create_future()  # it follows the run

    assert [event.seq for event in (await RecordedRun.fetch(Handle())).events] == [1, 2, 3]


async def test_types_that_are_not_stated_are_asked_for() -> None:
    async def untyped(run):  # type: ignore[no-untyped-def]
        return {"text": "TEA please MONEY"}

    with pytest.raises(TypeError, match="give it as `input`"):
        await replay(untyped, await of_the_shop())

    @dataclass
    class Local:
        question: str

    async def local(run: Run[Local]) -> Answer:
        return Answer("")

    with pytest.raises(TypeError, match="give them as `input` and `output`"):
        await replay(local, await of_the_shop())


async def test_a_run_that_failed_because_of_the_size_of_its_result_fails_again() -> None:
    async def wordy(run: Run[int]) -> str:
        return "x" * run.input

    run = recorded(await play(wordy, 192 * 1024), 192 * 1024)
    assert (await replay(wordy, run, name="a")).is_same
    assert not (await replay(wordy, run, name="a", limits=AgentLimits(max_result_bytes=1 << 20))).is_same
