"""The table of a client session's states, and that a session never leaves it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_khala import frames
from oa_khala.client.commands import Command, Instant, SyncToken
from oa_khala.client.session import ClientSession
from oa_khala.client.states import NEXT, RUNNING, State, Step, WrongStep, after, allows

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
AT = Instant(1_000, 0.5)
WELCOME = frames.Welcome("con_1", 25_000, 60_000, 128, 65_536, 1_000, 301_000)
TOKEN = SyncToken("token", frozenset({T}), 300_000)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_what_is_not_in_the_table_is_refused(state: State, step: Step) -> None:
    if allows(state, step):
        assert after(state, step) is NEXT[state][step]
    else:
        with pytest.raises(WrongStep, match=f"{step.name} can't happen in {state.name}"):
            after(state, step)


def test_every_state_can_be_reached_and_nothing_leads_out_of_the_last() -> None:
    reached = [State.IDLE]
    for state in reached:
        reached += [each for each in NEXT[state].values() if each not in reached]
    assert set(reached) == set(State)
    assert set(NEXT[State.STOPPED].values()) == {State.STOPPED}
    assert all(allows(state, Step.STOP) for state in State)


def test_a_connection_is_wanted_where_the_device_may_go_to_sleep() -> None:
    assert {State.NO_TOKEN, State.CONNECTING, State.GREETING, State.OPEN} == RUNNING


Report = Callable[[ClientSession, Instant], list[Command]]
EXPECTED: dict[Step, Report] = {
    Step.START: lambda session, at: session.start(at),
    Step.CONNECTED: lambda session, at: session.connected(session.generation, at),
    Step.WELCOMED: lambda session, at: session.frame(session.generation, WELCOME, at),
    Step.LOST: lambda session, at: session.disconnected(session.generation, at),
    Step.SUSPEND: lambda session, _: session.suspended(),
    Step.RESUME: lambda session, at: session.resumed(at),
}
REPORTS: tuple[Report, ...] = (
    *EXPECTED.values(),
    lambda session, at: session.subscribe(T, None, at),
    lambda session, at: session.token(TOKEN, at),
    lambda session, at: session.no_token("unavailable", "", at),
    lambda session, at: session.frame(session.generation, frames.ErrorFrame("", "reauth_required", ""), at),
    lambda session, at: session.timer(at),
)


def session_in(state: State) -> ClientSession:
    """A session of one topic that has come to `state` by the shortest way."""
    session = ClientSession("dev_1", "test/1")
    session.subscribe(T, None, AT)
    if state is State.STOPPED:
        session.stop()
    elif state is not State.IDLE:
        session.start(AT)
        if state is State.SUSPENDED:
            session.suspended()
        elif state is not State.NO_TOKEN:
            session.token(TOKEN, AT)
            if state is not State.CONNECTING:
                session.connected(1, AT)
            if state is State.OPEN:
                session.frame(1, WELCOME, AT)
    assert session.state is state
    return session


@pytest.mark.parametrize("state", State)
def test_a_report_that_the_state_does_not_expect_changes_nothing(state: State) -> None:
    for step, report in EXPECTED.items():
        session = session_in(state)
        generation = session.generation
        commands = report(session, AT)
        if allows(state, step):
            assert (session.state, commands, session.generation) != (state, [], generation), step
        else:
            assert (session.state, commands, session.generation) == (state, [], generation), step


@given(st.lists(st.tuples(st.sampled_from(REPORTS), st.integers(0, 60_000)), max_size=80))
def test_whatever_is_reported_the_session_stays_in_its_table(steps: list[tuple[Report, int]]) -> None:
    session = ClientSession("dev_1", "test/1")
    now_ms = 0
    for report, passed_ms in steps:
        now_ms += passed_ms
        before = session.state
        report(session, Instant(now_ms, 0.5))
        reachable = {before, *NEXT[before].values()}
        # One report may be two steps: START, LOST or RESUME, and then DIAL.
        assert session.state in reachable | {state for each in reachable for state in NEXT[each].values()}
