"""Steps are done once for a run, whatever dies and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.testing import Played, play, play_with_deaths
from oa_worker.agents.tests.rig import Answer, Ask, asked, working
from oa_worker.tests.fake_runtime import RUN
from openagents.runtime.v1 import event_pb2 as pb


@dataclass
class Quote:
    """What a step returns."""

    item: str
    price: Decimal


class Shop:
    """What is outside of the run: it sees how often it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def quote(self, item: str) -> Quote:
        self.asked["quote"] += 1
        return Quote(item, Decimal("12.50"))

    def charge(self, amount: Decimal) -> str:
        self.asked["charge"] += 1
        return f"paid {amount}"

    async def order(self, run: Run[Ask]) -> Answer:
        """An agent of two steps."""
        quote = await run.step("quote", self.quote, run.input.question)
        assert isinstance(quote, Quote)
        async with run.assistant() as out:
            await out.write("One moment. ")
        paid = await run.step("charge", self.charge, quote.price)
        return Answer(f"{quote.item}: {paid}")


async def test_a_step_is_recorded_with_its_result() -> None:
    played = await play(Shop().order, Ask("tea"))
    assert played.result == Answer("tea: paid 12.50")
    assert (played.steps, played.attempts) == (["quote", "charge"], 1)
    steps = [event.step_completed for event in played.events if event.HasField("step_completed")]
    assert [step.ordinal for step in steps] == [1, 2]
    assert [step.result_json for step in steps] == ['{"item":"tea","price":"12.50"}', '"paid 12.50"']
    assert len({step.fingerprint for step in steps}) == 2


async def test_whatever_dies_a_recorded_step_is_not_done_again() -> None:
    """Only the step that the death cut off is done twice: its result had nowhere to stand yet."""
    deaths = 0
    shops: list[Shop] = []

    async def order(run: Run[Ask]) -> Answer:
        if run.attempt == 1:
            shops.append(Shop())
        return await shops[-1].order(run)

    async for played in play_with_deaths(order, Ask("tea")):
        assert played.result == Answer("tea: paid 12.50")
        assert played.steps == ["quote", "charge"], "each stands once in the log"
        asked_for = shops[-1].asked
        again = [name for name, times in asked_for.items() if times > 1]
        assert len(again) <= 1
        assert max(asked_for.values()) <= 2
        deaths += played.attempts - 1
    assert deaths == 2 * len(played.events), "before and after each event that is stored"


async def test_steps_that_go_on_at_once_are_told_apart_by_the_order_of_their_beginning() -> None:
    async def letter(name: str) -> str:
        await asyncio.sleep({"a": 0.02, "b": 0.0, "c": 0.01}[name])
        return name

    async def agent(run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(*(run.step("letter", letter, name) for name in "abc")))

    async for played in play_with_deaths(agent, Ask("x")):
        assert played.result == ["a", "b", "c"]
        assert sorted(event.step_completed.ordinal for event in played.events) == [1, 2, 3]


async def test_another_order_or_other_arguments_fail_the_run_and_say_both() -> None:
    async def note(what: str) -> str:
        return what

    async def reordered(run: Run[Ask]) -> str:
        names = ["quote", "charge"] if run.attempt == 1 else ["charge", "quote"]
        return "".join([await run.step(name, note, "x") for name in names])

    finish = (await play(reordered, Ask("x"), death=3)).finish
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, "step_mismatch")
    assert finish.message.startswith("step 1 of this run was 'quote', and 'charge' is asked for now; ")

    async def changed(run: Run[Ask]) -> str:
        return await run.step("quote", note, f"secret {run.attempt}")

    finish = (await play(changed, Ask("x"), death=1)).finish
    assert finish.reason == "step_mismatch"
    assert finish.message.startswith("step 1, 'quote', was done with other arguments than it is asked for with now; ")
    assert "secret" not in finish.message


async def test_what_a_step_raises_is_the_agents_and_the_step_is_not_done() -> None:
    async def fails() -> str:
        raise ConnectionError("away")

    async def agent(run: Run[Ask]) -> str:
        try:
            return await run.step("fetch", fails)
        except ConnectionError:
            return "without"

    played = await play(agent, Ask("x"))
    assert (played.result, played.steps) == ("without", [])


@pytest.mark.parametrize(
    ("name", "reason"), [("", "missing_field"), ("x" * 129, "invalid_value"), ("\0", "invalid_value")]
)
async def test_a_step_without_a_valid_name_is_not_done(name: str, reason: str) -> None:
    shop = Shop()

    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(Refusal) as refused:
            await run.step(name, shop.charge, Decimal(1))
        assert (refused.value.reason, refused.value.field) == (reason, "name")
        return await run.step("charge", shop.charge, Decimal(2))

    played = await play(agent, Ask("x"))
    assert (played.result, shop.asked["charge"]) == ("paid 2", 1)
    assert [event.step_completed.ordinal for event in played.events] == [1]


async def test_a_result_that_is_not_of_its_type_or_too_large_fails_the_run() -> None:
    async def lies() -> int:
        return "17"  # type: ignore[return-value]

    async def talks() -> str:
        return "x" * 100

    async def agent(run: Run[Ask]) -> str:
        return str(await (run.step("lies", lies) if run.input.question == "lies" else run.step("talks", talks)))

    assert (await play(agent, Ask("lies"))).finish.reason == "invalid_value"
    finish = (await play(agent, Ask("talks"), limits=AgentLimits(max_step_bytes=101))).finish
    assert (finish.reason, "102 bytes" in finish.message) == ("payload_too_large", True)
    assert (await play(agent, Ask("talks"), limits=AgentLimits(max_step_bytes=102))).result == "x" * 100


def greeting(name: str, self: int = 0) -> str:
    return f"{name} {self}"


async def test_a_functions_arguments_may_have_any_names() -> None:
    async def agent(run: Run[Ask]) -> str:
        return await run.step("greet", greeting, name=run.input.question, self=2)

    assert (await play(agent, Ask("Ann"))).result == "Ann 2"


async def test_a_type_that_is_not_in_the_functions_module_passes_as_plain_json_or_not_at_all() -> None:
    @dataclass
    class Local:
        price: int

    def quoted() -> Local:
        return Local(5)

    def listed() -> list[Local]:
        return []

    async def agent(run: Run[Ask]) -> str:
        return str(await run.step("s", quoted if run.input.question == "quoted" else listed))

    assert (await play(agent, Ask("listed"))).result == "[]"
    finish = (await play(agent, Ask("quoted"))).finish
    assert (finish.reason, "names 'Local'" in finish.message) == ("invalid_value", True)


class Quotes:
    """An object that can be called."""

    def __call__(self, item: str) -> Quote:
        return Quote(item, Decimal(1))


@pytest.mark.parametrize(
    ("quote", "arguments"),
    [
        (Quotes(), ["tea"]),
        (Quotes().__call__, ["tea"]),
        (partial(Quotes(), "tea"), []),
        (partial(Quote, "tea"), [Decimal(1)]),
        (Quote, ["tea", Decimal(1)]),
    ],
)
async def test_whatever_can_be_called_states_what_it_returns(quote: Callable[..., Quote], arguments: list[Any]) -> None:
    async def agent(run: Run[Ask]) -> str:
        return type(await run.step("quote", quote, *arguments)).__name__

    assert (await play(agent, Ask("x"))).result == "Quote"


async def test_a_type_without_a_form_in_json_is_refused_by_its_name() -> None:
    def numbers() -> range:
        return range(3)

    async def agent(run: Run[Ask]) -> str:
        return str(await run.step("s", numbers))

    finish = (await play(agent, Ask("x"))).finish
    assert (finish.reason, finish.message.split(";")[0]) == ("invalid_value", "range has no form in JSON")


async def test_time_and_chance_are_the_same_after_a_takeover() -> None:
    seen: list[tuple[datetime, float]] = []

    async def agent(run: Run[Ask]) -> str:
        seen.append((await run.now(), await run.random()))
        await run.emit("acme.seen")
        return ""

    await play(agent, Ask("x"), death=5)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0].tzinfo == UTC
    assert 0 <= seen[0][1] < 1


async def test_a_sleep_goes_on_where_it_was_and_not_from_its_start() -> None:
    waited: list[float] = []

    async def agent(run: Run[Ask]) -> str:
        begin = asyncio.get_running_loop().time()
        await run.sleep(timedelta(milliseconds=300))
        waited.append(asyncio.get_running_loop().time() - begin)
        await run.emit("acme.awake")
        return ""

    played = await play(agent, Ask("x"), death=3)
    assert played.attempts == 2
    assert waited[0] >= 0.29
    assert played.steps == ["sleep"]
    end = datetime.fromisoformat(played.events[0].step_completed.result_json.strip('"'))
    assert datetime.now(UTC) >= end, "both waited for the same moment"


async def test_a_step_returns_only_once_it_is_stored() -> None:
    """Else what follows might happen although the next worker would do the step again."""
    runtime = asked()
    runtime.faults.drop_before = {1}

    async def name() -> str:
        return "a"

    async def agent(run: Run[Ask]) -> Answer:
        await run.step("name", name)
        return Answer(f"{len(runtime.logs[RUN].events)} stored, {runtime.appends} sent")

    async with working(runtime, agent, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"1 stored, 2 sent"}'


@pytest.mark.parametrize(
    "trouble",
    [
        Refusal("unavailable", "away"),
        Refusal("overloaded", "full", retry_after_ms=5),
        Refusal("unknown_method", "a proxy has no route"),
    ],
)
async def test_a_worker_that_takes_over_reads_the_log_page_by_page(trouble: Refusal) -> None:
    shop, before = Shop(), await play(Shop().order, Ask("why"))
    runtime = asked()
    log = runtime.logs[RUN]
    log.events.extend(before.events)
    log.attempt = 2
    runtime.faults.read = [trouble]
    async with working(runtime, shop.order, Ask, Answer):
        await runtime.until(lambda: log.finished)
    assert log.events[-1].run_finished.result_json == '{"text":"why: paid 12.50"}'
    assert shop.asked == Counter()


@pytest.mark.parametrize("takes_renewals", [True, False])
async def test_a_call_that_is_refused_with_its_token_is_made_with_a_fresh_one(takes_renewals: bool) -> None:
    runtime = asked()
    runtime.takes_renewals = takes_renewals
    runtime.logs[RUN].attempt = 2
    runtime.faults.bad_tokens = {"token-1", "token-2"}
    async with working(runtime, Shop().order, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.result_json == '{"text":"why: paid 12.50"}'
    if takes_renewals:
        assert (runtime.streams, runtime.renewals) == (1, ["token-2", "token-3"])
    else:
        assert runtime.tokens == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]


async def test_a_call_that_is_refused_with_fresh_tokens_again_and_again_fails() -> None:
    runtime = asked()
    runtime.takes_renewals = True
    runtime.logs[RUN].attempt = 2
    runtime.faults.bad_tokens = {f"token-{number}" for number in range(20)}
    async with working(runtime, Shop().order, Ask, Answer):
        await runtime.until(lambda: runtime.logs[RUN].finished)
    assert runtime.logs[RUN].events[-1].run_finished.reason == "invalid_token"


async def test_a_run_that_was_taken_away_meanwhile_is_left() -> None:
    runtime, begun, go_on = asked(), asyncio.Event(), asyncio.Event()
    runtime.logs[RUN].attempt = 2

    async def order(run: Run[Ask]) -> Answer:
        begun.set()
        await go_on.wait()
        return await Shop().order(run)

    async with working(runtime, order, Ask, Answer):
        await begun.wait()
        runtime.take_lease(RUN, say=False)
        go_on.set()
        await runtime.until(lambda: runtime.held[-1:] == [[]] and len(runtime.held) > 2)
    assert runtime.logs[RUN].events == []


async def test_a_play_that_failed_says_how() -> None:
    async def agent(run: Run[Ask]) -> str:
        raise ValueError("no such thing")

    played: Played[str] = await play(agent, Ask("x"))
    with pytest.raises(AssertionError, match="agent_error"):
        _ = played.result
    assert played.text == ""


async def test_a_play_takes_whatever_can_be_called_and_refuses_what_is_of_another_kind() -> None:
    class Echo:
        async def __call__(self, run: Run[Ask]) -> Quote:
            return Quote(run.input.question, Decimal(1))

    async def of(item: str, run: Run[Ask]) -> Quote:
        return Quote(item, Decimal(1))

    assert [(await play(agent, Ask("tea"))).result.item for agent in (Echo(), partial(of, "milk"))] == ["tea", "milk"]
    wrong: dict[str, dict[str, Any]] = {
        "agent": {"agent": None},
        "inputs": {"inputs": "tea"},
        "answers[?]": {"answers": {"?": True}},
        "death": {"death": -1},
    }
    for field, given in wrong.items():
        with pytest.raises(Refusal) as refused:
            await play(**{"agent": Echo(), "value": Ask("x"), **given})
        assert (refused.value.reason, refused.value.field) == ("invalid_value", field)


async def test_a_play_refuses_an_answer_that_nobody_could_give() -> None:
    async def agent(run: Run[Ask]) -> str:
        return await run.choose("Which?", ["tea", "milk"]) if await run.approve("Order?") else ""

    for answers in ({"Order?": "perhaps"}, {"Order?": "yes", "Which?": "water"}):
        finish = (await play(agent, Ask("x"), answers=answers)).finish
        assert (finish.reason, "must be one of" in finish.message) == ("invalid_value", True)
    assert (await play(agent, Ask("x"), answers={"Order?": "yes", "Which?": "milk"})).result == "milk"


async def test_a_step_that_was_done_and_is_not_asked_for_again_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def fickle(run: Run[Ask]) -> Answer:
        await run.step("first", asyncio.sleep, 0)
        if run.attempt == 1:
            await run.step("charge", asyncio.sleep, 0)
        return Answer("done")

    for death, warnings in ((2, 0), (3, 1), (99, 0)):  # before the second step is stored, after that, never
        caplog.clear()
        played = await play(fickle, Ask("x"), death=death)
        assert played.result == Answer("done")
        told = [record.getMessage() for record in caplog.records if "ended without it" in record.getMessage()]
        assert len(told) == warnings
        assert all("step 2, 'charge'" in text and "attempt 2 has ended" in text for text in told)
