"""What `oa run show` and `oa run result` say of a run in its states."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from apps.cli.commands.runs.runs import _show_run, _tell_no_result
from apps.cli.output import Output
from apps.cli.tests.hostile import screens
from oa_client.core.models import Finish, Run

WORKER = "wrk_01JD8V0000000000000000000A"
RUN = Run("run_01JD8V0000000000000000000A", "title", "exec", "created", 1, "", 0, "2026-11-29T00:00:00Z", None, {})
FAILED = Finish(outcome="failed", reason="exec_failed", message="exit code 3", exit_code=3)
SUCCEEDED = Finish(outcome="succeeded", reason="", message="", exit_code=0)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (RUN, "worker      none"),
        (replace(RUN, status="running", worker_id=WORKER), f"worker      {WORKER}"),
        (replace(RUN, status="failed", finish=FAILED), ""),
    ],
)
def test_an_ended_run_is_not_said_to_have_had_no_worker(run: Run, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = screens(monkeypatch, terminal=False)
    _show_run(Output(), run, "")
    lines = out.written.decode().splitlines()
    assert [each for each in lines if each.startswith("worker")] == ([line] if line else [])


def test_a_run_that_failed_is_an_error_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, terminal=False)
    output = Output()
    output.as_json = True
    _tell_no_result(output, RUN.run_id, FAILED)
    error = json.loads(err.written)["error"]
    assert (out.written, error["reason"]) == (b"", "exec_failed")
    assert "exit code 3" in error["message"]
    assert error["metadata"] == {"run_id": RUN.run_id, "outcome": "failed"}


def test_a_run_that_succeeded_without_a_result_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, terminal=False)
    output = Output()
    output.as_json = True
    _tell_no_result(output, RUN.run_id, SUCCEEDED)
    assert (json.loads(out.written), err.written) == ({"result": None}, b"")


def test_people_read_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, terminal=False)
    _tell_no_result(Output(), RUN.run_id, FAILED)
    assert err.written.decode() == f"{RUN.run_id} failed without a result: exit code 3\n"
