"""What goes wrong with an app-server: each has its reason word (docs/codex.md), and leaves nothing running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from oa_runlog.authority.retries import LASTING
from oa_testing.logs import logged
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.codex.adapter import CodexAdapter, CodexSettings
from oa_worker.adapters.codex.inputs import YEAR_MS
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.tests.rig import (
    BEGUN,
    QUICK,
    WELL,
    Act,
    Log,
    assignment,
    at_work,
    completed,
    heard,
    said,
    scripted,
)
from oa_worker.adapters.exec.process import Process
from oa_worker.tests.commands import until_dead
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

OVERLOADED: Act = {"error": {"code": -32001, "message": "Server overloaded; retry later."}}
ASKS: Act = {
    "say": {
        "method": "item/commandExecution/requestApproval",
        "id": 7,
        "params": {"threadId": "thread-1", "turnId": "turn-1", "itemId": "i", "command": "rm all"},
    }
}
HANG: Act = {"hang": True}


async def finish_of(
    folder: Path,
    script: Mapping[str, Sequence[Act]],
    log: Log | None = None,
    limits: CodexLimits = QUICK,
    **given: object,
) -> pb.RunFinished:
    """How a turn ends whose app-server does this."""
    log = log or Log()
    async with asyncio.timeout(PATIENCE_S):
        run = assignment(log, {"prompt": "p", "working_directory": str(folder), **given})
        return await scripted(folder, script, limits).run(run, log.emit)


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ({"initialize": [{"exit": 3}]}, "codex_died", "ended: 3"),
        ({"turn/start": [BEGUN, {"exit": 0}]}, "codex_died", "ended: 0"),
        ({"turn/start": [BEGUN, {"exit": -signal.SIGKILL}]}, "codex_died", "signal 9"),
        ({"turn/start": [BEGUN, {"raw": "Segmentation fault"}]}, "codex_bad_message", "no JSON"),
        ({"turn/start": [BEGUN, {"raw": '{"a": NaN}'}]}, "codex_bad_message", "no JSON"),
        ({"turn/start": [BEGUN, {"raw": "[" * 100_000}]}, "codex_bad_message", "no JSON"),
        ({"turn/start": [BEGUN, {"raw": "[1]"}]}, "codex_bad_message", "no object"),
        ({"turn/start": [BEGUN, {"raw": '{"method": 1}'}]}, "codex_bad_message", "neither"),
        ({"turn/start": [BEGUN, {"flood": 3_000_000}, HANG]}, "codex_bad_message", "longer than"),
        ({"turn/start*": [OVERLOADED], "turn/start": [OVERLOADED]}, "codex_overloaded", "too busy for turn/start"),
        ({"initialize": [HANG]}, "codex_not_answering", "initialize"),
        ({"thread/start": [{"error": {"code": -32600, "message": "no such model"}}]}, "codex_refused", "no such model"),
        ({"thread/start": [{"result": {}}]}, "codex_bad_message", "did not name it"),
        ({"turn/start": [BEGUN, completed("failed", error={"message": "no money"})]}, "codex_turn_failed", "no money"),
        ({"turn/start": [BEGUN, completed("failed")]}, "codex_turn_failed", "does not say why"),
        ({"turn/start": [BEGUN, completed("interrupted")]}, "codex_interrupted", "itself"),
    ],
)
async def test_each_failure_has_its_reason(
    tmp_path: Path, script: Mapping[str, Sequence[Act]], reason: str, words: str
) -> None:
    limits = CodexLimits(max_line_bytes=2_000_000, overload_first_ms=1, overload_max_ms=2)
    if reason == "codex_not_answering":
        limits = CodexLimits(answer_timeout_ms=50)
    finish = await finish_of(tmp_path, script, limits=limits)
    assert (finish.outcome, finish.reason) == (pb.RUN_OUTCOME_FAILED, reason)
    assert words in finish.message


async def test_codex_is_not_there(tmp_path: Path) -> None:
    log = Log()
    run = assignment(log, {"prompt": "p"})
    home = {**os.environ, "CODEX_HOME": str(tmp_path / "codex-home")}
    missing = await CodexAdapter(CodexSettings("no-such-codex", environment=home)).run(run, log.emit)
    (tmp_path / "plain").write_text("not a program")
    useless = await CodexAdapter(CodexSettings(str(tmp_path / "plain"), environment=home)).run(run, log.emit)
    assert (missing.reason, useless.reason) == ("codex_not_found", "codex_not_started")
    assert "no-such-codex" in missing.message


async def test_an_app_server_that_is_busy_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    script = {"turn/start": [OVERLOADED], "turn/start*": [BEGUN, completed()]}
    assert (await finish_of(tmp_path, script)).outcome == pb.RUN_OUTCOME_SUCCEEDED
    assert len(heard(tmp_path, "turn/start")) == 2


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"working_directory": "/no/such/place"}, "working_directory_not_found"),
        ({"sandbox": "danger-full-access"}, "sandbox_not_allowed"),
        ({"sandbox": "whatever"}, "invalid_input"),
        ({"prompt": ""}, "invalid_input"),
        ({"approval_timeout_ms": 0}, "invalid_input"),
        ({"approval_timeout_ms": YEAR_MS + 1}, "invalid_input"),
        ({"timeout_ms": 10**400}, "invalid_input"),
    ],
)
async def test_what_a_run_may_not_ask_for(tmp_path: Path, given: Mapping[str, Any], reason: str) -> None:
    assert (await finish_of(tmp_path, {}, **given)).reason == reason
    assert not (tmp_path / "heard").exists(), "no app-server was started"


async def test_a_worker_whose_own_directory_is_gone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # to be back in the right one at the end
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    finish = await finish_of(tmp_path, {}, working_directory="")
    assert (finish.reason, "own directory" in finish.message) == ("working_directory_not_found", True)
    assert (await finish_of(tmp_path, {}, working_directory=str(tmp_path))).outcome == pb.RUN_OUTCOME_SUCCEEDED


@pytest.mark.parametrize("turn", [{}, {"turn": None}, {"turn": {}}, {"turn": {"id": 7}}, {"turn": {"id": ""}}], ids=str)
async def test_the_end_of_a_turn_without_a_name_is_not_the_end_of_ours(tmp_path: Path, turn: Mapping[str, Any]) -> None:
    script = {"turn/start": [said("turn/completed", **turn), BEGUN, said("turn/completed", **turn), completed()]}
    assert (await finish_of(tmp_path, script)).outcome == pb.RUN_OUTCOME_SUCCEEDED


async def test_a_turn_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    log = Log()
    script = {"turn/start": [BEGUN], "turn/interrupt": [{"result": {}}, completed("interrupted")]}
    patient = CodexLimits(interrupt_grace_ms=60_000)
    finish = await finish_of(tmp_path, script, log, patient, timeout_ms=20)
    assert finish.reason == "timeout"
    assert log.kinds[-1] == "turn interrupted"
    assert len(heard(tmp_path, "turn/interrupt")) == 1


async def test_a_turn_that_does_not_heed_its_interrupt_is_ended(tmp_path: Path) -> None:
    log = Log()
    begins = said("turn/started", turn={"id": "turn-1"})
    script = {"turn/start": [BEGUN, {"child": str(tmp_path / "child")}, begins, HANG]}
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, script), run, log) as working:
        await log.until(lambda log: "turn progress" in log.kinds)
        run.cancel.request("enough", 10_000)
        finish = await working
    assert (finish.outcome, log.kinds[-1]) == (pb.RUN_OUTCOME_CANCELED, "turn interrupted")
    await until_dead(int((tmp_path / "child").read_text()))


async def test_an_app_server_that_ends_is_missed_though_others_hold_its_output(tmp_path: Path) -> None:
    script = {"turn/start": [BEGUN, {"child": str(tmp_path / "child")}, {"exit": 3}]}
    assert (await finish_of(tmp_path, script)).reason == "codex_died"
    await until_dead(int((tmp_path / "child").read_text()))


class SlowLog(Log):
    """Stores the end of a turn only when the app-server is gone, as a log does whose authority was away."""

    def __init__(self, started: list[Process]) -> None:
        super().__init__()
        self._started = started

    async def emit(self, event: pb.EventBody) -> None:
        if event.codex_event.turn.status == codex_pb2.TURN_STATUS_COMPLETED:
            await self._started[0].gone.wait()
            for _ in range(100):  # so that the loop also knows of the end of its outputs
                await asyncio.sleep(0)
        await super().emit(event)


async def test_a_turn_that_was_completed_succeeds_though_the_app_server_ends_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Process] = []
    start = Process.start

    async def noted(*args: Any, **how: Any) -> Process:
        started.append(await start(*args, **how))
        return started[-1]

    monkeypatch.setattr(Process, "start", noted)
    finish = await finish_of(tmp_path, {"turn/start": [BEGUN, completed(), {"exit": 3}]}, SlowLog(started))
    assert (finish.outcome, finish.message) == (pb.RUN_OUTCOME_SUCCEEDED, "")


async def test_a_run_that_is_taken_away_leaves_nothing(tmp_path: Path) -> None:
    log = Log()
    script = {"turn/start": [BEGUN, {"child": str(tmp_path / "child")}, ASKS, HANG]}
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, script), run, log) as working:
        await log.until(lambda log: "request_opened" in log.kinds)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    await until_dead(int((tmp_path / "child").read_text()))
    assert log.kinds[-1] == "request_opened", "nothing was said after it"


async def test_a_turn_is_not_taken_twice(tmp_path: Path) -> None:
    log = Log()
    assert (await finish_of(tmp_path, {"turn/start": [BEGUN, {"exit": 1}]}, log)).reason == "codex_died"
    adapter = scripted(tmp_path / "second", {})
    again = await adapter.run(assignment(log, {"prompt": "p"}, attempt=2), log.emit)
    assert again.reason == "codex_turn_lost"
    assert again.reason in LASTING, "another attempt would end the same way"
    assert "thread-1" in again.message
    assert not (tmp_path / "second" / "heard").exists(), "no app-server was started"


async def test_a_turn_that_had_not_begun_is_taken_by_the_next_worker(tmp_path: Path) -> None:
    log = Log()
    assert (await finish_of(tmp_path, {"thread/start": [{"exit": 1}]}, log)).reason == "codex_died"
    adapter = scripted(tmp_path / "second", {})
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)}, attempt=2)
    assert (await adapter.run(run, log.emit)).outcome == pb.RUN_OUTCOME_SUCCEEDED


async def test_a_thread_is_at_one_turn_at_a_time(tmp_path: Path) -> None:
    log, other = Log(), Log()
    resumes, begins = WELL["thread/start"], [BEGUN, said("turn/started"), HANG]
    adapter = scripted(tmp_path, {"thread/resume": resumes, "turn/start": begins})
    first = assignment(log, {"prompt": "p", "resume": "thread-1"})
    second = assignment(other, {"prompt": "q", "resume": "thread-1"})
    async with at_work(adapter, first, log) as working:
        await log.until(lambda log: "turn progress" in log.kinds)
        assert (await adapter.run(second, other.emit)).reason == "codex_thread_busy"
        first.cancel.request("enough", 0)
        await working
    (tmp_path / "script.json").write_text(json.dumps({**WELL, "thread/resume": resumes}))
    again = await adapter.run(second, other.emit)
    assert again.outcome == pb.RUN_OUTCOME_SUCCEEDED


async def test_a_new_thread_is_at_its_turn_too(tmp_path: Path) -> None:
    log, other = Log(), Log()
    adapter = scripted(tmp_path, {"turn/start": [BEGUN, said("turn/started"), HANG]})
    async with at_work(adapter, assignment(log, {"prompt": "p"}), log):
        await log.until(lambda log: "turn progress" in log.kinds)
        second = assignment(other, {"prompt": "q", "resume": "thread-1"})
        assert (await adapter.run(second, other.emit)).reason == "codex_thread_busy"


async def test_a_cancel_before_the_turn_has_begun(tmp_path: Path) -> None:
    log = Log()
    adapter = scripted(tmp_path, {"initialize": [HANG]})
    run = assignment(log, {"prompt": "p"})
    async with at_work(adapter, run, log) as working:
        while not (tmp_path / "heard").exists():
            await asyncio.sleep(0.02)
        run.cancel.request("enough", 0)
        assert (await working).outcome == pb.RUN_OUTCOME_CANCELED
    assert log.events == []


async def test_what_an_app_server_says_last_is_in_the_worker_s_log_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = {"stderr": "panic at the disco, api_key=hunter2 " + "x" * 10_000 + " the end"}
    await finish_of(tmp_path, {"turn/start": [BEGUN, {"stderr": "api_key=hunter2 panicked"}, {"exit": 101}]})
    assert "panicked" in caplog.text
    assert "hunter2" not in caplog.text
    await finish_of(tmp_path / "long", {"turn/start": [BEGUN, words, {"exit": 101}]})
    assert "the end" in caplog.text
    assert max(len(record.getMessage()) for record in logged(caplog, "oa_worker")) < 6_000
