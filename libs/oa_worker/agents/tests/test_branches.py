"""Functions whose branches go on at once: whatever dies, and when, each branch comes to where it was."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from oa_runlog.fingerprint import text_sha256
from oa_testing.waiting import PATIENCE_S
from oa_worker.agents import AgentLimits, Run
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.agents.replays.replaying import replay
from oa_worker.agents.testing import play, play_with_deaths
from oa_worker.agents.tests.recordings import recorded
from oa_worker.agents.tests.rig import Ask
from oa_worker.sdk.adapter import Assignment, News
from openagents.runtime.v1 import event_pb2 as pb
from openagents.runtime.v1.worker_service_pb2 import HeldLease

FOR_EVER = AgentLimits(past_patience_ms=10**9)
"""For those that never need it."""


class Branches:
    """Three branches of two steps, whose first ones end in the order `b`, `c`, `a`, each after the branch before it."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self._turns = {name: asyncio.Event() for name in "bca"}
        self._turns["b"].set()

    async def first(self, name: str) -> str:
        await self._turns[name].wait()
        self.done[name] += 1
        return name

    async def second(self, name: str) -> str:
        self.done[f"{name} again"] += 1
        return f"{name} again"

    async def branch(self, run: Run[Ask], name: str, follower: str) -> str:
        await run.step(name, self.first, name)
        said = await run.step(f"{name} again", self.second, name)
        self._turns[follower].set()
        return said

    async def agent(self, run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(*(self.branch(run, *names) for names in ("ab", "bc", "ca"))))


async def test_branches_are_told_apart_whatever_dies() -> None:
    deaths = 0
    while True:
        branches = Branches()
        played = await play(branches.agent, Ask("x"), death=deaths, limits=FOR_EVER)
        assert played.result == ["a again", "b again", "c again"]
        assert played.steps == ["b", "b again", "c", "c again", "a", "a again"]
        assert sum(branches.done.values()) <= 7, "one that was cut off is done again"
        if played.attempts == 1:
            break
        deaths += 1
    assert deaths == 2 * 6


async def test_a_branch_may_do_something_by_itself_between_two_steps() -> None:
    async def note(name: str) -> str:
        return name

    async def branch(run: Run[Ask], name: str, turns: int) -> None:
        await run.step(name, note, name)
        await asyncio.to_thread(lambda: None)
        for _ in range(turns):
            await asyncio.sleep(0)
        await run.step(f"{name} again", note, name)

    async def agent(run: Run[Ask]) -> int:
        await asyncio.gather(branch(run, "a", 300), branch(run, "b", 0), branch(run, "c", 100))
        return 3

    async for played in play_with_deaths(agent, Ask("x"), limits=FOR_EVER):
        assert played.result == 3


async def test_branches_may_come_to_their_steps_in_another_order_than_they_did() -> None:
    done: Counter[str] = Counter()

    async def count(name: str) -> str:
        done[name] += 1
        return name

    async def agent(run: Run[Ask]) -> list[str]:
        first, second = ("a", "b") if run.attempt == 1 else ("b", "a")
        goes_on = asyncio.Event()

        async def branch(name: str) -> str:
            await run.step(name, count, name)
            if name == second:
                await goes_on.wait()
            said = await run.step("again", count, f"{name} again") + await run.step("last", count, "last")
            goes_on.set()
            return said

        assert first != second
        return list(await asyncio.gather(branch("a"), branch("b")))

    deaths = 0
    while True:
        done.clear()
        played = await play(agent, Ask("x"), death=deaths, limits=AgentLimits(past_patience_ms=1))
        assert played.result == ["a againlast", "b againlast"]
        ordinals = [event.step_completed.ordinal for event in played.events if event.HasField("step_completed")]
        assert sorted(ordinals) == [1, 2, 3, 4, 5, 6], "each stands once in the log"
        assert sum(done.values()) <= 8, "of two branches two steps may be cut off"
        if played.attempts == 1:
            break
        deaths += 1


TWO_ASK: dict[str, Any] = {"children": {"price": "12"}}


async def two_ask(run: Run[Ask], names: str, seen: set[tuple[str, str]]) -> list[str]:
    """Branches that start the same agent and ask people, in the order of their names."""

    async def branch(name: str) -> str:
        child = await run.start_child("price", {"of": name})
        seen.add((name, child.run_id))
        return await run.choose("Take it?", ["a", "b"], detail=name, default=name)

    return sorted(await asyncio.gather(*map(branch, names)))


async def test_each_branch_gets_its_own_child_and_answer_in_whatever_order_they_come() -> None:
    seen: set[tuple[str, str]] = set()

    async def agent(run: Run[Ask]) -> list[str]:
        return await two_ask(run, "ab" if run.attempt == 1 else "ba", seen)

    deaths = 0
    while True:
        seen.clear()
        played = await play(agent, Ask("x"), death=deaths, limits=AgentLimits(past_patience_ms=1), **TWO_ASK)
        assert played.result == ["a", "b"]
        kept = {name: event.child_started.run_id for event in played.events if (name := _of(event.child_started))}
        assert len(kept) == 2, "each is started once"
        assert {(name, run_id) for name, run_id in seen if kept[name] != run_id} == set()
        assert sorted(_requests(played.events)) == ["r1", "r2"], "each is asked once"
        if played.attempts == 1:
            break
        deaths += 1
    assert deaths == 2 * 4


async def own_task_and_another(run: Run[Ask], names: str, seen: set[tuple[str, str]]) -> list[str]:
    """The function's own task is `a`, the one beside it `b`. They do the same, the first of the names first."""
    begins = {name: asyncio.Event() for name in names}
    begins[names[0]].set()

    async def branch(name: str) -> str:
        await begins[name].wait()
        told = asyncio.create_task(after_turns(20, begins[names[1]].set))
        answer = await run.choose("Take it?", ["a", "b"], detail=name, default=name)
        child = await run.start_child("price", {"of": name})
        seen.add((name, child.run_id))
        await told
        return await run.step("note", note, answer)

    beside = asyncio.create_task(branch("b"))
    return [await branch("a"), await beside]


async def after_turns(turns: int, then: Callable[[], None]) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    then()


async def test_what_the_own_task_asks_first_after_a_takeover_is_told_from_what_another_task_did() -> None:
    seen: set[tuple[str, str]] = set()

    async def agent(run: Run[Ask]) -> list[str]:
        return await own_task_and_another(run, "ba" if run.attempt == 1 else "ab", seen)

    plays = 0
    async for played in play_with_deaths(agent, Ask("x"), limits=AgentLimits(past_patience_ms=1), **TWO_ASK):
        assert played.result == ["a", "b"]
        assert sorted(_requests(played.events)) == ["r1", "r2"], "each is asked once"
        assert seen == {(_of(child), child.run_id) for event in played.events if _of(child := event.child_started)}
        seen.clear()
        plays += 1
    assert plays == 2 * 6 + 1


async def test_a_replay_tells_what_the_own_task_asks_from_what_another_task_did() -> None:
    async def agent(run: Run[Ask]) -> list[str]:
        return await own_task_and_another(run, "ba", set())

    async def other_way(run: Run[Ask]) -> list[str]:
        return await own_task_and_another(run, "ab", set())

    run = recorded(await play(agent, Ask("x"), **TWO_ASK), Ask("x"))
    (await replay(other_way, run)).check(whole=True)


async def test_numbers_and_times_of_branches_are_told_apart_by_name() -> None:
    async def branch(run: Run[Ask], name: str) -> tuple[str, float]:
        number = await run.random(f"chance {name}")
        await run.sleep(timedelta(0), f"wait {name}")
        await run.step(f"at {name}", note, str(await run.now(f"time {name}")))
        return name, number

    async def agent(run: Run[Ask]) -> dict[str, float]:
        return dict(await asyncio.gather(*(branch(run, name) for name in ("ab" if run.attempt == 1 else "ba"))))

    deaths = 0
    while True:
        played = await play(agent, Ask("x"), death=deaths, limits=AgentLimits(past_patience_ms=1))
        steps = [event.step_completed for event in played.events if event.HasField("step_completed")]
        stored = {step.name.removeprefix("chance "): json.loads(step.result_json) for step in steps}
        assert played.result == {name: stored[name] for name in "ab"}
        assert len(steps) == 8, "each is done once"
        if played.attempts == 1:
            break
        deaths += 1
    assert deaths == 2 * 8


def _of(child: pb.ChildStarted) -> str:
    names = {text_sha256(f'{{"of":"{name}"}}'): name for name in "ab"}
    return names.get(child.input_sha256, "")


def _requests(events: Sequence[pb.EventBody]) -> list[str]:
    return [event.request_opened.request_id for event in events if event.HasField("request_opened")]


async def test_a_replay_tells_children_and_questions_of_branches_apart() -> None:
    async def agent(run: Run[Ask]) -> list[str]:
        return await two_ask(run, "ab", set())

    async def other_way(run: Run[Ask]) -> list[str]:
        return await two_ask(run, "ba", set())

    async def other_input(run: Run[Ask]) -> list[str]:
        return await two_ask(run, "ac", set())

    run = recorded(await play(agent, Ask("x"), **TWO_ASK), Ask("x"))
    (await replay(agent, run)).check(whole=True)
    (await replay(other_way, run)).check(whole=True)
    divergence = (await replay(other_input, run, patience_ms=0)).divergence
    assert divergence is not None
    assert (divergence.recorded, divergence.asked) == ("child c2, 'price'", "child c3, 'price'")


async def test_branches_that_ask_listen_and_start_children_come_to_the_same_places() -> None:
    async def note(name: str) -> str:
        return name

    async def asks(run: Run[Ask]) -> str:
        answer = await run.choose("Which?", ["tea", "milk"])
        return await run.step("asked", note, answer) + str(await run.approve("Order?"))

    async def listens(run: Run[Ask]) -> str:
        heard = await run.receive(str)
        return await run.step("heard", note, heard) + await run.receive(str)

    async def delegates(run: Run[Ask]) -> str:
        child = await run.start_child("price", {"of": "tea"})
        price = await child.result(str)
        return await run.step("priced", note, price)

    async def agent(run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(asks(run), listens(run), delegates(run)))

    how = {"answers": {"Which?": "milk", "Order?": "yes"}, "inputs": ["a", "b"], "children": {"price": "12"}}
    async for played in play_with_deaths(agent, Ask("x"), limits=FOR_EVER, **how):  # type: ignore[arg-type]
        assert played.result == ["milkTrue", "ab", "12"]


async def test_workers_of_a_pool_may_take_other_things_from_their_queue() -> None:
    done: Counter[str] = Counter()

    async def work(item: str) -> str:
        done[item] += 1
        return item.upper()

    async def agent(run: Run[Ask]) -> dict[str, str]:
        queue, results = deque("abcdef"), dict[str, str]()

        async def takes(turns: int) -> None:
            while queue:
                item = queue.popleft()
                for _ in range(turns):  # what it does by itself takes longer in one attempt than in another
                    await asyncio.sleep(0)
                results[item] = await run.step("work", work, item)

        await asyncio.gather(*(takes(200 * (number + run.attempt) % 600) for number in range(3)))
        return results

    deaths = 0
    while True:
        done.clear()
        played = await play(agent, Ask("x"), death=deaths, limits=AgentLimits(past_patience_ms=1))
        assert played.result == {item: item.upper() for item in "abcdef"}
        assert sum(done.values()) <= 6 + 3, "of three workers three steps may be cut off"
        assert len(played.steps) == 6, "each stands once in the log"
        if played.attempts == 1:
            break
        deaths += 1
    assert deaths == 2 * 6


async def steps_done(
    lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
) -> AsyncIterator[bytes]:
    for seq in (1, 2):
        yield pb.RunEvent(seq=seq, body=pb.EventBody(step_completed=pb.StepCompleted(ordinal=seq))).SerializeToString()


async def test_one_that_is_canceled_in_its_turn_holds_up_no_other() -> None:
    class Canceling(Past):
        async def _until_quiet(self) -> None:
            await super()._until_quiet()
            first.cancel()

    past = Canceling(Assignment("run_1", 2, 2, pb.RunSpec(), read=steps_done), patience_ms=10**9)
    first, second = (asyncio.create_task(past.turn_of(seq)) for seq in (1, 2))
    async with asyncio.timeout(PATIENCE_S):
        await second
    assert first.cancelled()


async def test_one_that_is_canceled_as_its_patience_ends_holds_up_no_other() -> None:
    class Late(News):
        async def after(self, count: int) -> None:
            first.cancel()
            await asyncio.wait({first})
            raise TimeoutError

    past = Past(Assignment("run_1", 2, 2, pb.RunSpec(), read=steps_done), patience_ms=10**9)
    past._asked = Late()
    first, second = asyncio.create_task(past.turn_of(2)), asyncio.create_task(past.over())
    async with asyncio.timeout(PATIENCE_S):
        await second
    assert first.cancelled()


async def test_what_nobody_asks_for_is_waited_for_once() -> None:
    waits = 0

    class Counting(Past):
        async def _moves_within_patience(self) -> bool:
            nonlocal waits
            waits += 1
            return await super()._moves_within_patience()

    past = Counting(Assignment("run_1", 2, 2, pb.RunSpec(), read=steps_done), patience_ms=1)
    await asyncio.gather(past.over(), past.over())  # branches, since no task is said to be the function's own
    await past.over()
    assert waits == 1
    await past.turn_of(1)  # somebody does ask, though late: the rest may come, too
    await past.over()
    assert waits == 2


async def away() -> str:
    raise ConnectionError


async def note(name: str) -> str:
    return name


async def falls_back(run: Run[Ask], name: str = "only") -> str:
    try:
        return await run.step(f"fetch {name}", away)
    except ConnectionError:
        return await run.step(f"fall back {name}", note, name)


async def test_a_step_that_raised_holds_up_nothing_where_there_is_no_other_branch() -> None:
    async with asyncio.timeout(PATIENCE_S):
        async for played in play_with_deaths(falls_back, Ask("x"), limits=FOR_EVER):
            assert played.result == "only"


async def test_branches_go_on_without_one_that_does_not_ask_in_time() -> None:
    async def agent(run: Run[Ask]) -> list[str]:
        return list(await asyncio.gather(*(falls_back(run, name) for name in "abc")))

    async for played in play_with_deaths(agent, Ask("x"), limits=AgentLimits(past_patience_ms=1)):
        assert played.result == ["a", "b", "c"]


async def test_what_is_given_up_is_waited_for_by_nobody() -> None:
    async def agent(run: Run[Ask]) -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.step("slow", asyncio.sleep, 3600)
        return await run.step("next", note, "next") + await run.step("last", note, "last")

    async with asyncio.timeout(PATIENCE_S):
        async for played in play_with_deaths(agent, Ask("x"), limits=FOR_EVER):
            assert played.result == "nextlast"
