"""Yesterday's runs are today what they were then: every recorded history is replayed, and all of it comes out again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.state import RunState, RunStatus, reducer
from oa_runlog.state.transitions import RUN_TRANSITIONS, TRIGGERS, trigger
from oa_runlog.wire import upcast
from oa_runlog.workers import WORKER_TRANSITIONS, WorkerStatus, WorkerTrigger
from openagents.runtime.v1 import event_pb2
from tests.contract.histories import record, workers
from tests.contract.histories.check import NOW_ALLOWED, HistoryChanged, check
from tests.contract.histories.history import Attempted, History, Stored, dump, load
from tests.contract.histories.record import FOLDER, corpus, current_release, history_of, write_missing
from tests.contract.histories.stories import STORIES
from tests.contract.histories.teller import Tried

RUN_FILES = sorted(FOLDER.glob("*/runs/*.jsonl"))
WORKER_FILES = sorted(FOLDER.glob("*/workers.jsonl"))
STATUSES = (None, *RunStatus)


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def _recorded(name: str) -> History:
    return load((FOLDER / record.current_release() / "runs" / f"{name}.jsonl").read_text("utf-8"))


def _pairs(history: History) -> Iterator[tuple[bool, RunStatus | None, str]]:
    """Each line's status before it and trigger, and whether the run took it."""
    state: RunState | None = None
    for line in history.lines:
        event = wire.decode_event(line.data)
        yield isinstance(line, Stored), state.status if state else None, trigger(event.body)
        if isinstance(line, Stored):
            state = reducer.advance(state, event, line.data)


# ------------------------------------------------------------------------------------------------- the replay


@pytest.mark.parametrize("path", RUN_FILES, ids=_name)
def test_a_recorded_run_replays_as_it_did(path: Path) -> None:
    check(load(path.read_text("utf-8")))


@pytest.mark.parametrize("path", WORKER_FILES, ids=_name)
def test_recorded_workers_go_where_they_went(path: Path) -> None:
    _, walks = workers.load(path.read_text("utf-8"))
    assert walks
    for walk in walks:
        workers.check(walk)


@pytest.mark.parametrize("path", RUN_FILES, ids=_name)
def test_a_file_holds_nothing_that_is_not_read(path: Path) -> None:
    text = path.read_text("utf-8")
    assert dump(load(text)) == text


# ------------------------------------------------------------------------------------------------- what is covered


def test_every_pair_of_status_and_event_is_in_a_history() -> None:
    seen = {pair for path in RUN_FILES for pair in _pairs(load(path.read_text("utf-8")))}
    passed = {(status, what) for taken, status, what in seen if taken}
    refused = {(status, what) for taken, status, what in seen if not taken}
    every = {(status, what) for status in STATUSES for what in TRIGGERS}
    assert sorted(map(str, set(RUN_TRANSITIONS) - passed)) == [], "allowed, and no history passes through them"
    assert sorted(map(str, every - set(RUN_TRANSITIONS) - refused)) == [], "not allowed, and no history tries them"


def test_every_pair_of_worker_status_and_trigger_is_in_a_walk() -> None:
    seen: set[tuple[WorkerStatus | None, WorkerTrigger]] = set()
    passed: set[tuple[WorkerStatus | None, WorkerTrigger]] = set()
    for path in WORKER_FILES:
        for walk in workers.load(path.read_text("utf-8"))[1]:
            status: WorkerStatus | None = None
            for what, after in walk.steps:
                seen.add((status, what))
                passed |= {(status, what)} if after else set()
                status = after or status
    assert seen == {(status, what) for status in (None, *WorkerStatus) for what in WorkerTrigger}
    assert passed == set(WORKER_TRANSITIONS)


# ------------------------------------------------------------------------------------------------- the recorder


@pytest.mark.parametrize("file", corpus(current_release()), ids=lambda file: file.path)
def test_the_current_release_is_recorded_and_still_decides_so(file: record.Recorded) -> None:
    """Fails when `decide` does something else with the same commands. If that is meant: rename the story (see the
    docs), so that what was recorded stays. Fails too after a new version number, until that release is recorded.
    """
    path = FOLDER / file.path
    assert path.exists(), "run: python -m tests.contract.histories.record"
    assert path.read_text("utf-8") == file.text


def test_recording_writes_what_is_missing_and_never_what_exists(tmp_path: Path) -> None:
    files = corpus("9.9.9")[:3]
    kept = tmp_path / files[1].path
    kept.parent.mkdir(parents=True)
    kept.write_text("yesterday's\n")
    assert write_missing(files, tmp_path) == [files[0].path, files[2].path]
    assert kept.read_text() == "yesterday's\n"
    assert (tmp_path / files[0].path).read_text("utf-8") == files[0].text
    assert write_missing(files, tmp_path) == []


def test_a_run_of_a_real_deployment_can_be_taken_in() -> None:
    events = _recorded("lost_and_taken_over").events
    file = record.from_log("from_there", "it ran", [f"{data.hex()}\n" for data in events] + ["\n"], "0.1.0")
    taken = load(file.text)
    assert file.path == "0.1.0/runs/from_there.jsonl"
    assert (taken.events, taken.shows) == (events, "it ran")
    check(taken)


def test_the_recorder_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main([], tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [file.path for file in corpus(current_release())]
    log = "".join(f"{data.hex()}\n" for data in _recorded("failed").events)
    for name, status in (("from_there", 0), ("from_there", 1), ("failed", 1)):
        monkeypatch.setattr("sys.stdin", io.StringIO(log))
        assert record.main(["--log", name, "--shows", "it ran"], tmp_path) == status
    assert "choose another name" in capsys.readouterr().err
    taken = (tmp_path / current_release() / "runs" / "from_there.jsonl").read_text("utf-8")
    assert load(taken).shows == "it ran"


def test_a_log_with_a_hole_is_no_history() -> None:
    events = list(_recorded("lost_and_taken_over").events)
    del events[2]
    with pytest.raises(Refusal, match="sequence_broken"):
        history_of("run_x", events, shows="", release="0.1.0")
    with pytest.raises(ValueError, match="no events"):
        record.from_log("empty", "", ["\n"], "0.1.0")


def test_a_log_given_under_another_runs_id_is_noticed() -> None:
    """The chain starts from the run's id, and every event names it."""
    history = history_of("run_other", _recorded("failed").events, shows="", release="0.1.0")
    with pytest.raises(HistoryChanged, match="run: recorded 'run_other'"):
        check(history)


def test_an_attempt_that_is_taken_is_not_recorded() -> None:
    first, second = _recorded("commanded").events
    with pytest.raises(ValueError, match=r"run\.started is not refused here"):
        history_of("run_x", [first, Tried(second)], shows="", release="0.1.0")


def test_run_ids_differ_and_have_the_form_of_run_ids() -> None:
    ids = {story.run_id for story in STORIES}
    assert len(ids) == len(STORIES)
    assert all(len(run_id) == len("run_") + 26 for run_id in ids)


# ------------------------------------------------------------------------------------------------- the format


def test_any_text_survives_the_file() -> None:
    history = replace(_recorded("failed"), shows='line\u2028separator, next\x85line, "quotes"\r\n and 世界')
    assert load(dump(history)) == history


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format":1', '"format":2'),
        ('"line":"header"', '"line":"trailer"'),
        ('"line":"attempted"', '"line":"guessed"'),
        ('"events":4', '"events":5'),
    ],
)
def test_another_format_is_not_guessed_at(old: str, new: str) -> None:
    text = dump(_recorded("failed"))
    assert old in text
    with pytest.raises(ValueError):
        load(text.replace(old, new))


# ------------------------------------------------------------------------------------------------- the check bites


def _swap(history: History, index: int, line: Stored | Attempted) -> History:
    return replace(history, lines=(*history.lines[:index], line, *history.lines[index + 1 :]))


def _spoiled() -> Iterator[tuple[str, History, str]]:
    history = _recorded("lost_too_often")
    stored, tried = history.lines[1], history.lines[-1]
    assert isinstance(stored, Stored)
    assert isinstance(tried, Attempted)
    last = len(history.lines) - 1
    yield "type", _swap(history, 1, replace(stored, type="message")), "line 3: type"
    yield "status", _swap(history, 1, replace(stored, status="created")), "line 3: status"
    yield "hash", _swap(history, 1, replace(stored, state_hash="00")), "line 3: state hash"
    yield (
        "bytes",
        _swap(history, 1, replace(stored, data=stored.data[:-1] + b"\x02")),
        "line 3: today this is refused: invalid",
    )
    yield "no event", _swap(history, 1, replace(stored, data=b"\xff")), "line 3: today this is refused: malformed"
    yield "dropped", replace(history, lines=history.lines[1:]), "line 2: today this is refused: invalid_transition"
    yield "event", _swap(history, last, replace(tried, trigger="usage")), f"line {last + 2}: event"
    yield "reason", _swap(history, last, replace(tried, reason="stale_epoch")), f"line {last + 2}: reason"
    yield "origin", _swap(history, last, replace(tried, origin="running")), f"line {last + 2}: status"
    yield "allowed", _swap(history, last, replace(tried, allowed=("usage",))), f"line {last + 2}: what is allowed"
    yield "taken", _swap(history, 1, Attempted(stored.data, "run.started", "x")), "line 3: run.started is accepted"
    yield "state", replace(history, state={}), "state at the end"
    yield "end hash", replace(history, state_hash="00"), "state hash at the end"
    yield "chain", replace(history, chain_head="00"), "chain head"


@pytest.mark.parametrize(("history", "says"), [pytest.param(*rest, id=name) for name, *rest in _spoiled()])
def test_whatever_differs_is_said_with_its_line(history: History, says: str) -> None:
    with pytest.raises(HistoryChanged) as changed:
        check(history)
    assert str(changed.value).startswith(says)


# ------------------------------------------------------------------------------------------------- what may grow


def test_what_a_release_did_not_know_contradicts_nothing_that_it_recorded() -> None:
    """To the recording release, `custom` did not exist: that it is allowed today is no change of what was refused."""
    history = _recorded("lost_and_waiting")
    lines = tuple(
        replace(line, allowed=tuple(what for what in line.allowed if what != "custom"))
        if isinstance(line, Attempted)
        else line
        for line in history.lines
    )
    with pytest.raises(HistoryChanged, match="what is allowed"):
        check(replace(history, lines=lines))
    check(replace(history, lines=lines, triggers=tuple(what for what in history.triggers if what != "custom")))


def test_what_is_allowed_on_purpose_since_a_later_release_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    history = _recorded("waiting")
    more = {**RUN_TRANSITIONS, (RunStatus.CREATED, "usage"): RunStatus.CREATED}
    monkeypatch.setattr("oa_runlog.state.transitions.RUN_TRANSITIONS", more)
    with pytest.raises(HistoryChanged):
        check(history)
    check(history, now_allowed={("created", "usage"): "0.2.0"})


def test_nothing_is_said_to_be_allowed_now_that_is_not() -> None:
    allowed = {(str(status or "absent"), what) for status, what in RUN_TRANSITIONS}
    assert set(NOW_ALLOWED) <= allowed


# ------------------------------------------------------------------------------------------------- older versions


def _in_version_0(data: bytes) -> bytes:
    """The event as a version that never was would have stored it: attempts counted from 0."""
    event = event_pb2.RunEvent.FromString(data)
    event.schema_version = 0
    for name in ("run_started", "executor_lost"):
        if event.body.WhichOneof("kind") == name:
            getattr(event.body, name).attempt -= 1
    return event.SerializeToString(deterministic=True)


def _to_version_1(event: event_pb2.RunEvent) -> None:
    for name in ("run_started", "executor_lost"):
        if event.body.WhichOneof("kind") == name:
            getattr(event.body, name).attempt += 1


def test_a_history_in_an_older_version_leads_to_the_same_under_its_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    today = _recorded("lost_and_taken_over")
    monkeypatch.setattr(upcast, "STEPS", {0: _to_version_1})
    old = history_of(today.run_id, map(_in_version_0, today.events), shows="version 0", release="0.0.1")
    check(load(dump(old)))
    assert isinstance(old.state, dict)
    assert isinstance(today.state, dict)
    assert old.state == today.state | {"chain_head": old.chain_head}
    assert old.chain_head != today.chain_head
    monkeypatch.setattr(upcast, "STEPS", {})
    with pytest.raises(HistoryChanged, match="line 2: today this is refused: unsupported_schema_version"):
        check(old)
