"""One timer of the event loop rings for all sessions."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from oa_base.refusal import Refusal
from oa_khala.server.deadlines import NEVER
from oa_khala.server.session import ServerSession
from oa_testing.waiting import eventually
from services.khala_gateway.connections.app.subscriber import TopicSubscriber
from services.khala_gateway.connections.app.timer import TICK_MS, Alarms, SessionTimer
from services.khala_gateway.feeds.app.replays import ReplayPage
from services.khala_gateway.tests.harness import T, running


def now_ms() -> int:
    """By the clock that the event loop goes by."""
    return int(time.monotonic() * 1000)


class Session:
    """What a timer asks of a session."""

    def __init__(self, wake_at_ms: int) -> None:
        self.wake_at_ms = wake_at_ms


class Bell:
    """A session's timer, and when it rang."""

    def __init__(self, alarms: Alarms, at_ms: int, does: Callable[[], None] = lambda: None) -> None:
        self.session = Session(at_ms)
        self.timer = SessionTimer(cast("ServerSession", self.session), alarms, self._due)
        self.rang_at_ms: list[int] = []
        self._does = does
        self.timer.arm()

    def _due(self, _now_ms: int) -> None:
        self.rang_at_ms.append(now_ms())
        self._does()


@pytest.fixture
def alarms() -> Alarms:
    return Alarms(now_ms)


async def test_each_is_told_once_and_not_before_its_time(alarms: Alarms) -> None:
    soon_ms = (3 * TICK_MS, TICK_MS, 5 * TICK_MS, 0, -TICK_MS, TICK_MS + 1)
    bells = [Bell(alarms, now_ms() + in_ms) for in_ms in soon_ms]
    await eventually(lambda: all(bell.rang_at_ms for bell in bells))
    assert all(bell.session.wake_at_ms <= bell.rang_at_ms[0] for bell in bells)
    await asyncio.sleep(2 * TICK_MS / 1000)
    assert [len(bell.rang_at_ms) for bell in bells] == [1] * len(bells)


async def test_an_earlier_time_takes_the_place_of_a_later_one(alarms: Alarms) -> None:
    bell = Bell(alarms, now_ms() + 3_600_000)
    bell.session.wake_at_ms = now_ms()
    bell.timer.arm()
    await eventually(lambda: len(bell.rang_at_ms) == 1)
    bell.session.wake_at_ms = now_ms() + TICK_MS
    bell.timer.arm()
    await eventually(lambda: len(bell.rang_at_ms) == 2)


async def test_a_later_time_takes_the_place_of_an_earlier_one(alarms: Alarms) -> None:
    moved, other = Bell(alarms, now_ms() + TICK_MS), Bell(alarms, now_ms() + 3 * TICK_MS)
    moved.session.wake_at_ms = now_ms() + 3_600_000
    moved.timer.arm()
    await eventually(lambda: bool(other.rang_at_ms))
    assert moved.rang_at_ms == []
    moved.timer.stop()


async def test_a_timer_that_fails_or_stops_another_harms_no_third(alarms: Alarms) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context["exception"])))

    def fails() -> None:
        stopped.timer.stop()
        raise ValueError("a defect")

    at_ms = now_ms() + TICK_MS
    Bell(alarms, at_ms, fails)
    stopped, third = Bell(alarms, at_ms), Bell(alarms, at_ms)
    await eventually(lambda: bool(third.rang_at_ms))
    assert failures == ["a defect"]
    assert stopped.rang_at_ms == []


async def test_a_time_that_stays_in_the_past_rings_once_a_tick() -> None:
    times: list[int] = []

    def due(at_ms: int) -> None:
        times.append(at_ms)
        assert len(times) <= 3, "the loop is held up"
        late.arm()

    alarms = Alarms(now_ms)
    late = SessionTimer(cast("ServerSession", Session(now_ms() - 1)), alarms, due)
    late.arm()
    await eventually(lambda: len(times) == 3)
    late.stop()
    assert len({at_ms // TICK_MS for at_ms in times}) == 3


async def test_a_time_that_another_session_postpones_is_kept(alarms: Alarms) -> None:
    def postpones() -> None:
        postponed.session.wake_at_ms = now_ms() + 3_600_000
        postponed.timer.arm()

    at_ms = now_ms() + TICK_MS
    Bell(alarms, at_ms, postpones)
    postponed, third = Bell(alarms, at_ms), Bell(alarms, at_ms)
    await eventually(lambda: bool(third.rang_at_ms))
    assert postponed.rang_at_ms == []
    postponed.timer.stop()


async def test_a_closed_session_is_not_told(alarms: Alarms) -> None:
    closed, open_one = Bell(alarms, now_ms() + TICK_MS), Bell(alarms, now_ms() + 3 * TICK_MS)
    closed.session.wake_at_ms = NEVER
    closed.timer.arm()
    await eventually(lambda: bool(open_one.rang_at_ms))
    assert closed.rang_at_ms == []


async def test_many_sessions_take_one_timer_of_the_loop(alarms: Alarms, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked = asyncio.get_running_loop(), list[float]()
    call_later = loop.call_later

    def counted(delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        asked.append(delay)
        return call_later(delay, callback)

    monkeypatch.setattr(loop, "call_later", counted)
    hour_ms = now_ms() + 3_600_000
    bells = [Bell(alarms, hour_ms + number) for number in range(200)]
    assert len(asked) == 1
    for bell in bells:
        bell.timer.stop()


async def test_topics_whose_history_is_not_there_share_a_timer_and_go_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as stack:
        dependencies, away = stack.server._dependencies, asyncio.Event()
        read = dependencies.replays.read

        async def read_if_there(*arguments: Any) -> ReplayPage:
            if not away.is_set():
                raise Refusal("unavailable", "away")
            return await read(*arguments)

        monkeypatch.setattr(dependencies.replays, "read", read_if_there)
        client = await stack.connect(T)
        await client.subscribe(T)
        alarms = dependencies.alarms
        await eventually(lambda: any(isinstance(one, TopicSubscriber) for due in alarms._due.values() for one in due))
        away.set()
        await client.until_up_to(T, 10)
        assert client.seqs[T] == list(range(1, 11))
