"""The stack around its services: stand-ins take their place, Postgres is the real one."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_localstack import stack as stack_module
from oa_localstack.files import hold
from oa_localstack.installation import state as state_module
from oa_localstack.installation.ports import Ports
from oa_localstack.installation.state import ProcessMark, StackState, read_state, state_path, write_state
from oa_localstack.lifecycle import remove, stop_running
from oa_localstack.postgres import placement
from oa_localstack.postgres.placement import cluster_id, marker_path
from oa_localstack.postgres.server import POSTGRES, PostgresServer, processes_in
from oa_localstack.processes.supervision import Change, Event, RestartPolicy
from oa_localstack.services import python_module
from oa_platform.config.callers import SERVICES
from oa_platform.config.ports import PORT_OFFSETS
from oa_platform.process.signals import STOP_SIGNALS
from oa_testing.postgres import FAST, free_port
from oa_testing.stack import StackUnderTest
from oa_testing.suite.skips import as_root
from oa_testing.waiting import PATIENCE_S, eventually

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
QUICK = RestartPolicy(attempts=3, backoff=Backoff(first_ms=10, max_ms=20))
MakeStack = Callable[..., StackUnderTest]


@pytest.fixture(autouse=True)
def _no_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about processes; what services migrate is theirs to test."""

    async def nothing(dsn: str, service: str) -> None:
        assert dsn.startswith("postgresql://oa_owner:")

    monkeypatch.setattr(stack_module, "migrate_service", nothing)


@pytest_asyncio.fixture
async def make_stack(scratch: Path) -> AsyncIterator[MakeStack]:
    """Makes stacks with stand-ins for services; those that run are stopped at the end."""
    made: list[StackUnderTest] = []

    def make(behavior: dict[str, str] | None = None, **options: Any) -> StackUnderTest:
        overrides = {name: {"STAND_IN": how} for name, how in (behavior or {}).items()}
        given: dict[str, Any] = {
            "home": scratch / "home",
            "port_base": free_port(tuple(PORT_OFFSETS.values())),
            "commands": dict.fromkeys(SERVICES, STAND_IN),
            "overrides": overrides,
            "postgres_settings": FAST,
            "policy": QUICK,
        }
        made.append(StackUnderTest(**{**given, **options}))
        return made[-1]

    yield make
    for stack in made:
        await stack.stop()


def _names(stack: StackUnderTest) -> list[str]:
    return [name for name in (POSTGRES, *SERVICES) if stack.pid(name) is not None]


async def test_it_starts_everything_and_leaves_nothing(make_stack: MakeStack) -> None:
    events: list[Event] = []
    stack = make_stack(on_event=events.append)
    await stack.start()

    assert _names(stack) == [POSTGRES, *SERVICES]
    assert events[0] == Event(POSTGRES, Change.STARTED)
    assert {event.name for event in events[1:]} == set(SERVICES)
    pids = [stack.pid(name) for name in (POSTGRES, *SERVICES)]

    await stack.stop()

    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    stopped = [event.name for event in events if event.change is Change.STOPPED]
    assert stopped == ["khala_gateway", "control", "projector", "runtime", POSTGRES]
    assert not state_path(stack.home).exists()


async def _once(stack: StackUnderTest) -> str:
    """Start and stop; the id of its database."""
    await stack.start()
    found = cluster_id(stack.home / "postgres" / "data")
    await stack.stop()
    assert found
    return found


@as_root
async def test_it_never_starts_empty_where_data_was_outside(
    make_stack: MakeStack, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is closed to the database's user; the folder that the link leads to is taken away."""
    monkeypatch.setattr(placement, "OUTSIDE", scratch / "outside")
    (scratch / "closed").mkdir(mode=0o700)
    home = scratch / "closed" / "home"
    first = await _once(make_stack(home=home))
    assert (home / "postgres").is_symlink()
    data = (home / "postgres").resolve()
    data.rename(scratch / "away")

    for _ in range(2):
        with pytest.raises(Refusal, match="oa up --forget-data") as refused:
            await make_stack(home=home).start()
        assert refused.value.reason == "start_failed"
        assert str(data) in refused.value.message
        assert not data.exists()

    (scratch / "away").rename(data)
    assert await _once(make_stack(home=home)) == first
    data.rename(scratch / "away")
    assert await _once(make_stack(home=home, forget_data=True)) != first


async def test_it_never_starts_empty_or_with_another_database_where_data_was_at_home(
    make_stack: MakeStack, scratch: Path
) -> None:
    first, second = make_stack(), make_stack(home=scratch / "other")
    ours, theirs = await _once(first), await _once(second)
    data, away = first.home / "postgres" / "data", scratch / "away"
    data.rename(away)
    with pytest.raises(Refusal, match=f"had the database {ours} in {data}.*, and there is none") as refused:
        await make_stack().start()
    assert refused.value.reason == "start_failed"
    assert not data.exists()

    (second.home / "postgres" / "data").rename(data)
    with pytest.raises(Refusal, match=f"the one there is {theirs}"):
        await make_stack().start()

    shutil.rmtree(data)
    away.rename(data)
    marker_path(first.home).unlink()  # of a release that wrote none: what is there is its own
    assert await _once(make_stack()) == ours
    assert marker_path(first.home).read_text() == f"{ours}\n"


async def test_supervision_makes_no_empty_database_in_the_place_of_one_that_vanished(make_stack: MakeStack) -> None:
    events: list[Event] = []
    stack = make_stack(on_event=events.append)
    await stack.start()
    data = stack.home / "postgres" / "data"
    data.rename(data.with_name("away"))
    pid = stack.pid(POSTGRES)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async with asyncio.timeout(PATIENCE_S):
        assert (await stack.wait_given_up()).name == POSTGRES

    assert not data.exists()
    assert "oa up --forget-data" in next(event.detail for event in events if event.change is Change.GAVE_UP)


async def test_data_and_secrets_outlive_a_stop(make_stack: MakeStack, scratch: Path) -> None:
    first = make_stack()
    await first.start()
    await first.stop()
    files = {path: path.read_bytes() for path in (scratch / "home" / "secrets").iterdir()}

    second = make_stack(port_base=first.ports.control_http)
    await second.start()

    assert {path: path.read_bytes() for path in (scratch / "home" / "secrets").iterdir()} == files


async def test_secrets_are_for_the_owner_alone(make_stack: MakeStack, scratch: Path) -> None:
    stack = make_stack()
    await stack.start()

    folder = scratch / "home" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    contents = [path.read_text() for path in folder.iterdir()]
    visible = [path.read_text() for path in (scratch / "home" / "logs").iterdir()]
    visible += [state_path(stack.home).read_text(), repr(stack.env), repr(stack.__dict__)]
    assert not [secret for secret in contents if any(secret in text for text in visible)]


async def test_a_secret_that_others_can_read_is_refused(make_stack: MakeStack, scratch: Path) -> None:
    stack = make_stack()
    await stack.start()
    await stack.stop()
    (scratch / "home" / "secrets" / "hmac-key").chmod(0o644)

    with pytest.raises(Refusal, match="hmac-key") as refusal:
        await stack.start()

    assert refusal.value.reason == "invalid_setting"


async def test_a_taken_port_is_named_before_anything_starts(make_stack: MakeStack) -> None:
    stack = make_stack()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", stack.ports.runtime_grpc))
        holder.listen()
        with pytest.raises(Refusal, match="runtime wants it") as refusal:
            await stack.start()

    assert refusal.value.reason == "port_in_use"
    assert not (stack.home / "postgres").exists()


async def test_two_stacks_run_side_by_side(make_stack: MakeStack, scratch: Path) -> None:
    one, other = make_stack(home=scratch / "one"), make_stack(home=scratch / "other")

    await one.start()
    await other.start()

    assert _names(one) == _names(other) == [POSTGRES, *SERVICES]


async def test_one_home_runs_one_stack(make_stack: MakeStack) -> None:
    first, second = make_stack(), make_stack()
    await first.start()

    with pytest.raises(Refusal) as refusal:
        await second.start()

    assert refusal.value.reason == "already_exists"
    assert _names(first) == [POSTGRES, *SERVICES]


@pytest.mark.parametrize(
    ("behavior", "said"),
    [("crash", "ended with status 3"), ("never", "was not ready after {} s (/readyz: 503 the stand-in waits")],
)
async def test_a_service_that_does_not_start_is_named_with_its_last_log_lines(
    make_stack: MakeStack, behavior: str, said: str
) -> None:
    """Where the stand-ins don't answer within the limit, because the machine is slow, a longer one is tried."""
    for limit in ("1", "10", "100"):
        stack = make_stack({"projector": behavior}, env={**os.environ, "OA_READY_TIMEOUT_S": limit})
        with pytest.raises(Refusal) as refusal:
            await stack.start()
        assert refusal.value.reason == "start_failed"
        assert processes_in(stack.home / "postgres" / "data") == []
        stack.ports.ensure_free()
        told = f"projector {said.format(limit)}" in refusal.value.message
        if told:
            break

    assert told, refusal.value.message
    assert f"stand-in: {behavior}" in refusal.value.message


@pytest.mark.parametrize("name", [POSTGRES, *SERVICES])
async def test_what_dies_is_started_again(make_stack: MakeStack, name: str) -> None:
    events: list[Event] = []
    stack = make_stack(on_event=events.append)
    await stack.start()
    dead = stack.pid(name)
    assert dead is not None

    os.kill(dead, signal.SIGKILL)
    await eventually(lambda: stack.restarts(name) == 1)

    assert stack.pid(name) not in (None, dead)
    died, restarted = [event for event in events if event.name == name][-2:]
    assert died == Event(name, Change.DIED, "with status -9")
    assert restarted.change is Change.RESTARTED
    state = read_state(stack.home)
    assert state is not None
    assert state.restarts[name] == 1
    assert state.processes[name].pid == stack.pid(name)


async def test_a_full_disk_ends_no_supervision(make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    stack = make_stack(on_event=events.append)
    await stack.start()
    with monkeypatch.context() as full:

        def refuse(home: Path, state: StackState) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(stack_module, "write_state", refuse)
        os.kill(stack.pid("control") or 0, signal.SIGKILL)
        await eventually(lambda: stack.restarts("control") == 1)
        await eventually(lambda: events[-1].change is Change.RESTARTED)
        assert "stack.json can't be written: No space left on device" in events[-1].detail

    os.kill(stack.pid("control") or 0, signal.SIGKILL)
    await eventually(lambda: stack.restarts("control") == 2)
    await eventually(lambda: (state := read_state(stack.home)) is not None and state.restarts["control"] == 2)


async def test_a_stack_that_starts_is_found_and_not_removed(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first moments on, when Postgres may have to replay its log for a minute."""
    stack = make_stack()

    async def look(self: PostgresServer) -> None:
        state = read_state(stack.home)
        assert state is not None
        assert (state.phase, state.supervisor.pid, state.processes) == ("starting", os.getpid(), {})
        state_path(stack.home).unlink()  # as if it came even sooner
        for _ in range(2):
            with pytest.raises(Refusal, match="is running") as refused:
                remove(stack.home)
            assert refused.value.reason == "already_exists"
            write_state(stack.home, state)
        raise Refusal("start_failed", "seen")

    monkeypatch.setattr(PostgresServer, "start", look)
    with pytest.raises(Refusal, match="seen"):
        await stack.start()
    assert read_state(stack.home) is None


async def test_the_state_of_a_stack_that_crashed_stays_until_there_is_another(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers wait for it, and take a state that is gone for a stack that was stopped."""
    stack = make_stack()
    stack.home.mkdir()
    write_state(stack.home, StackState(ProcessMark(os.getppid(), 1.0), "ready"))  # its number is another's by now
    removed: list[Path] = []
    monkeypatch.setattr(state_module, "remove_state", removed.append)

    def look(self: Ports) -> None:
        state = read_state(stack.home)
        assert state is not None
        assert state.supervisor.pid == os.getpid()
        raise Refusal("port_in_use", "seen")

    monkeypatch.setattr(Ports, "ensure_free", look)
    with pytest.raises(Refusal, match="seen"):
        await stack.start()
    assert (removed, read_state(stack.home)) == ([], None)


async def test_a_stop_waits_for_a_stack_that_has_no_state_yet(scratch: Path) -> None:
    assert await stop_running(scratch) is False
    lock = hold(scratch / "lock")
    assert lock is not None
    with lock:
        stopping = asyncio.create_task(stop_running(scratch))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.2)
    assert await stopping is False, "it ended by itself"


async def test_restarts_are_bounded(make_stack: MakeStack, scratch: Path) -> None:
    stack = make_stack(
        overrides={"runtime": {"STAND_IN": "once", "STAND_IN_MARK": str(scratch / "mark")}}, policy=QUICK
    )
    await stack.start()
    dead = stack.pid("runtime")
    assert dead is not None

    os.kill(dead, signal.SIGKILL)
    given_up = await asyncio.wait_for(stack.wait_given_up(), PATIENCE_S)

    assert given_up.name == "runtime"
    assert stack.restarts("runtime") == QUICK.attempts
    assert _names(stack) == [POSTGRES, "control", "projector", "khala_gateway"]


async def test_what_is_killed_on_purpose_stays_down_until_started(make_stack: MakeStack) -> None:
    stack = make_stack()
    await stack.start()

    stack.kill("runtime")
    await asyncio.sleep(0.2)
    assert stack.pid("runtime") is None
    await stack.start_service("runtime")

    assert stack.pid("runtime") is not None
    assert stack.restarts("runtime") == 0


async def test_a_service_that_does_not_drain_is_killed(make_stack: MakeStack) -> None:
    stack = make_stack({"control": "deaf"}, env={**os.environ, "OA_STOP_TIMEOUT_S": "0.3"})
    await stack.start()
    pid = stack.pid("control")
    assert pid is not None

    await stack.stop()

    assert not psutil.pid_exists(pid)


def _supervisor(stack: StackUnderTest, behavior: str = "ready", said: str = "ready\n") -> subprocess.Popen[str]:
    """A supervisor in a process of its own, as `oa up` is; returns when it has `said` that.

    It says when Postgres has started, and when the whole stack is ready.
    """
    program = f"""
import asyncio, sys
from pathlib import Path
from oa_localstack import stack as stack_module
from oa_platform.config.callers import SERVICES
from oa_localstack.lifecycle import run_until_stopped
from oa_testing.postgres import FAST

async def nothing(dsn, service): pass

stack_module.migrate_service = nothing
stack = stack_module.Stack(Path({str(stack.home)!r}), port_base={stack.ports.control_http},
                           commands=dict.fromkeys(SERVICES, {STAND_IN!r}), postgres_settings=FAST,
                           on_event=lambda event: event.name == "postgres" and print(event.change.value, flush=True))
asyncio.run(run_until_stopped(stack, lambda: print("ready", flush=True)))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "STAND_IN": behavior}
    process = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != said:
        assert line, f"it ended before it said {said!r}"
    return process


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_a_signal_during_the_start_leaves_nothing(make_stack: MakeStack, number: signal.Signals) -> None:
    stack = make_stack()
    with await asyncio.to_thread(_supervisor, stack, "never", "started\n") as supervisor:
        supervisor.send_signal(number)
        status = await asyncio.to_thread(supervisor.wait, PATIENCE_S)

    assert status == 0
    assert processes_in(stack.home / "postgres" / "data") == []
    assert read_state(stack.home) is None
    stack.ports.ensure_free()


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_a_second_signal_ends_it_at_once_with_all_that_it_runs(
    make_stack: MakeStack, number: signal.Signals
) -> None:
    """Its services take no notice of SIGTERM, and it would wait for them."""
    stack = make_stack()
    with await asyncio.to_thread(_supervisor, stack, "deaf") as supervisor:
        state = read_state(stack.home)
        assert state is not None
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.stdout is not None
        while not (log := stack.log_path("khala_gateway").read_text()).endswith("told\n"):
            assert supervisor.poll() is None, log
            await asyncio.sleep(0.02)
        supervisor.send_signal(number)
        status = await asyncio.to_thread(supervisor.wait, PATIENCE_S)
    assert status == 130
    if sys.platform == "linux":
        await eventually(lambda: not any(mark.is_alive() for mark in state.processes.values()))


async def test_another_shell_finds_and_stops_it(make_stack: MakeStack) -> None:
    outside = make_stack()
    with await asyncio.to_thread(_supervisor, outside) as supervisor:
        state = read_state(outside.home)
        assert state is not None
        assert state.phase == "ready"
        assert state.supervisor.pid == supervisor.pid
        assert set(state.processes) == {POSTGRES, *SERVICES}
        assert all(mark.is_alive() for mark in state.processes.values())
        # Its begin, as the clock has it, has changed: the clock was set.
        moved = replace(state.supervisor, started_at=state.supervisor.started_at + 2)
        write_state(outside.home, replace(state, supervisor=moved))
        with pytest.raises(Refusal, match="is running"):
            remove(outside.home)

        stopping = asyncio.create_task(stop_running(outside.home))
        status = await asyncio.to_thread(supervisor.wait, PATIENCE_S)

    assert await stopping is True
    assert status == 0
    assert not any(mark.is_alive() for mark in state.processes.values())
    assert await stop_running(outside.home) is False
    assert remove(outside.home) is True
    assert not outside.home.exists()


async def _killed_supervisor(stack: StackUnderTest) -> None:
    """Start the stack elsewhere and kill its supervisor; on Linux, return when the kernel has ended what it started."""
    with await asyncio.to_thread(_supervisor, stack) as supervisor:
        supervisor.kill()
    state = read_state(stack.home)
    assert state is not None
    assert not state.is_alive()
    if sys.platform == "linux":
        await eventually(lambda: not any(mark.is_alive() for mark in state.processes.values()))


async def test_a_killed_supervisor_takes_everything_along_and_is_recognised(make_stack: MakeStack) -> None:
    stack = make_stack()
    await _killed_supervisor(stack)

    await stack.start()

    assert _names(stack) == [POSTGRES, *SERVICES]


async def test_strays_of_a_killed_supervisor_are_ended(make_stack: MakeStack) -> None:
    """Where no kernel ends them: a stray is a recorded process that still runs while its supervisor does not."""
    stack = make_stack()
    await _killed_supervisor(stack)
    env = {**os.environ, "OA_OPS_ADDRESS": f"127.0.0.1:{stack.ports.runtime_ops}"}
    with await asyncio.to_thread(subprocess.Popen, STAND_IN, env=env) as stray:
        _record(stack.home, "runtime", stray.pid)

        await stack.start()

        assert await asyncio.to_thread(stray.wait, PATIENCE_S) == -signal.SIGKILL
    assert _names(stack) == [POSTGRES, *SERVICES]


def _record(home: Path, name: str, pid: int) -> None:
    """Write `pid` into the state file as if it had been a child of the last supervisor."""
    import json

    raw = json.loads(state_path(home).read_text())
    raw["processes"][name] = {"pid": pid, "started_at": psutil.Process(pid).create_time()}
    state_path(home).write_text(json.dumps(raw))


async def test_a_number_of_a_dead_process_in_use_again_is_left_alone(make_stack: MakeStack) -> None:
    stack = make_stack()
    await _killed_supervisor(stack)
    with await asyncio.to_thread(subprocess.Popen, ["sleep", "600"]) as bystander:
        _record(stack.home, "runtime", bystander.pid)
        text = state_path(stack.home).read_text()
        began = psutil.Process(bystander.pid).create_time()
        state_path(stack.home).write_text(text.replace(str(began), str(began - 100)))

        await stack.start()

        assert bystander.poll() is None
        bystander.kill()


def test_a_broken_state_file_is_no_state(tmp_path: Path) -> None:
    for text in ("", "{}", "[]", '{"supervisor": 1}', "\x00"):
        state_path(tmp_path).write_text(text)
        assert read_state(tmp_path) is None


def test_services_run_by_module_name() -> None:
    assert python_module("services.runtime")[1:] == ("-P", "-m", "services.runtime")
