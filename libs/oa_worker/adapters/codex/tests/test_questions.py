"""What Codex and its MCP servers ask people, and what they are told: only what somebody has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.tests.rig import (
    BEGUN,
    Act,
    Log,
    answer_to,
    asks,
    assignment,
    at_work,
    completed,
    heard,
    play,
    scripted,
)
from openagents.runtime.v1 import event_pb2 as pb

COLOR = {"id": "color", "header": "Color", "question": "Which color?", "isOther": False, "isSecret": False}
COLORED = {**COLOR, "options": [{"label": "red", "description": "Warm."}, {"label": "blue", "description": "Cold."}]}
NAME = {"id": "name", "header": "Name", "question": "What name?", "options": None}
WAITS: Act = {"await": 7}
FORM = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "seat": {"type": "string", "enum": ["aisle", "window"]}},
    "required": ["age"],
}
ASKS_FORM, AGE, SEAT = "booking: Who travels?", "booking: age", "booking: seat"


def asks_user(*questions: dict[str, Any]) -> Act:
    return asks(7, "item/tool/requestUserInput", questions=questions, isBlocking=False)


def elicits(mode: str = "form", **params: Any) -> Act:
    given = {"serverName": "booking", "mode": mode, "message": "Who travels?", "_meta": None, **params}
    return asks(7, "mcpServer/elicitation/request", **given)


async def test_questions_are_asked_at_a_time_and_told_together(tmp_path: Path) -> None:
    log = Log()
    script = {"turn/start": [BEGUN, asks_user(COLORED, NAME), WAITS, completed()]}
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, script), run, log) as working:
        await log.until(lambda log: len(log.opened) == 2)
        color, name = log.opened
        assert (color.kind, color.detail) == (pb.REQUEST_KIND_CHOICE, "red: Warm.\nblue: Cold.")
        assert [(option.id, option.label) for option in color.options] == [("1", "red"), ("2", "blue")]
        assert (name.kind, name.title) == (pb.REQUEST_KIND_TEXT, "What name?")
        log.answer(name.request_id, "Jo")
        assert not heard(tmp_path, "7")
        log.answer(color.request_id, "2")
        await working
    assert answer_to(tmp_path, 7)["result"] == {
        "answers": {"color": {"answers": ["blue"]}, "name": {"answers": ["Jo"]}}
    }
    assert log.receipts == {"r1": "applied"}
    asked = [event.codex_event.control_request for event in log.events if event.codex_event.HasField("control_request")]
    assert [(one.request_id, one.action) for one in asked] == [("r1", "ask_user")]
    assert [opened.request_id for opened in log.opened] == ["r1", "r2"]


async def test_an_answer_that_is_no_option(tmp_path: Path) -> None:
    log = Log(answers={"Which color?": ["0", "none at all"]})
    await play(tmp_path, asks_user({**COLORED, "isOther": True}), WAITS, log=log)
    assert [opened.kind for opened in log.opened] == [pb.REQUEST_KIND_CHOICE, pb.REQUEST_KIND_TEXT]
    assert answer_to(tmp_path, 7)["result"] == {"answers": {"color": {"answers": ["none at all"]}}}
    assert log.receipts == {"r1": "applied"}


async def test_what_nobody_answers_is_left_out(tmp_path: Path) -> None:
    log = Log(answers={"What name?": "Jo"}, in_vain="")
    await play(tmp_path, asks_user(COLORED, NAME), WAITS, log=log, approval_timeout_ms=1)
    assert answer_to(tmp_path, 7)["result"] == {"answers": {"name": {"answers": ["Jo"]}}}
    assert (log.receipts, log.whys) == ({"r1": "expired"}, ["1 of 2 questions had no answer in time"])


async def test_more_options_than_a_choice_has_stand_in_the_detail(tmp_path: Path) -> None:
    options = [{"label": f"color {number}", "description": ""} for number in range(40)]
    log = Log(answers={"Which color?": "color 7"})
    await play(tmp_path, asks_user({**COLOR, "options": options}), WAITS, log=log)
    assert "color 39" in log.opened[0].detail
    assert answer_to(tmp_path, 7)["result"] == {"answers": {"color": {"answers": ["color 7"]}}}


@pytest.mark.parametrize("questions", [[COLORED, {**NAME, "isSecret": True}], []])
async def test_a_secret_is_not_asked_for(tmp_path: Path, questions: list[dict[str, Any]]) -> None:
    log = await play(tmp_path, asks_user(*questions), WAITS)
    assert log.opened == []
    assert answer_to(tmp_path, 7)["result"] == {"answers": {}}
    assert log.receipts == {"r1": "failed"}


async def test_a_turn_that_ends_does_not_wait_for_answers(tmp_path: Path) -> None:
    log = await play(tmp_path, asks_user(COLORED, NAME))
    assert heard(tmp_path, "7") == []
    assert log.receipts == {"r1": "expired"}


async def test_a_cancel_ends_all_questions_of_a_form(tmp_path: Path) -> None:
    log = Log(answers={ASKS_FORM: "yes", AGE: "7"})
    script = {
        "turn/start": [BEGUN, elicits(requestedSchema=FORM)],
        "turn/interrupt": [{"result": {}}, completed("interrupted")],
    }
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, script), run, log) as working:
        await log.until(lambda log: SEAT in log.titles)
        run.cancel.request("no", 0)
        assert (await working).outcome == pb.RUN_OUTCOME_CANCELED
    assert heard(tmp_path, "7") == []
    assert log.receipts == {"r1": "expired"}


async def test_questions_count_against_the_limit_one_by_one(tmp_path: Path) -> None:
    log = await play(tmp_path, asks_user(COLORED, NAME), WAITS, limits=CodexLimits(max_open_requests=1))
    assert answer_to(tmp_path, 7)["result"] == {"answers": {}}
    assert (log.opened, log.receipts) == ([], {"r1": "failed"})


async def test_a_form_is_filled_in(tmp_path: Path) -> None:
    log = Log(answers={ASKS_FORM: "yes", AGE: ["seven", "7"], SEAT: "2"})
    await play(tmp_path, elicits(requestedSchema=FORM), WAITS, log=log)
    assert answer_to(tmp_path, 7)["result"] == {"action": "accept", "content": {"age": 7, "seat": "window"}}
    assert log.receipts == {"r1": "applied"}
    assert sorted(log.titles) == [ASKS_FORM, AGE, AGE, SEAT]
    assert log.opened[0].detail == "Who travels?\n\nAfter a yes you are asked for: age, seat (not required)."
    assert [opened.detail for opened in log.opened if opened.title == AGE] == ["", "The answer is no whole number."]


async def test_a_field_is_left_out(tmp_path: Path) -> None:
    log = Log(answers={ASKS_FORM: "yes", AGE: "7", SEAT: "0"})
    await play(tmp_path, elicits(requestedSchema=FORM), WAITS, log=log)
    assert answer_to(tmp_path, 7)["result"] == {"action": "accept", "content": {"age": 7}}


@pytest.mark.parametrize(
    ("answers", "action", "became"),
    [
        ({ASKS_FORM: "no"}, "decline", "declined"),
        ({}, "cancel", "expired"),
        ({ASKS_FORM: "yes", SEAT: "1"}, "cancel", "expired"),
        ({ASKS_FORM: "yes", SEAT: "1", AGE: ["a", "b"]}, "cancel", "failed"),
    ],
)
async def test_a_form_that_is_not_filled_in(
    tmp_path: Path, answers: dict[str, str | list[str]], action: str, became: str
) -> None:
    log = Log(answers=answers)
    limits = CodexLimits(max_answers=2)
    waits_ms = 1 if became == "expired" else 3_600_000
    await play(tmp_path, elicits(requestedSchema=FORM), WAITS, log=log, limits=limits, approval_timeout_ms=waits_ms)
    assert answer_to(tmp_path, 7)["result"] == {"action": action}
    assert log.receipts == {"r1": became}


@pytest.mark.parametrize(
    ("option", "told"), [("yes", {"action": "accept", "content": {}}), ("no", {"action": "decline"})]
)
async def test_a_call_of_a_tool_is_approved_by_a_form_without_fields(
    tmp_path: Path, option: str, told: dict[str, Any]
) -> None:
    message = 'Allow the booking MCP server to run tool "book"?'
    meta = {"codex_approval_kind": "mcp_tool_call", "persist": ["always"], "tool_params": {"seat": "7a"}}
    log = Log(answers={f"booking: {message}": option})
    asked = elicits(message=message, _meta=meta, requestedSchema={"type": "object", "properties": {}})
    await play(tmp_path, asked, WAITS, log=log)
    assert '"seat": "7a"' in log.opened[0].detail
    assert answer_to(tmp_path, 7)["result"] == told, "this once"


@pytest.mark.parametrize(("option", "action"), [("yes", "accept"), ("no", "decline")])
async def test_a_page_is_opened_by_people(tmp_path: Path, option: str, action: str) -> None:
    log = Log(answers={"booking: open a page of example.org?": option})
    await play(tmp_path, elicits("url", url="https://safe.org@example.org/sign", elicitationId="e"), WAITS, log=log)
    assert log.opened[0].detail.splitlines()[0] == "https://safe.org@example.org/sign"
    assert answer_to(tmp_path, 7)["result"] == {"action": action}


@pytest.mark.parametrize(
    "asked",
    [
        elicits("url", url="javascript:alert(1)"),
        elicits("url", url="https://exämple.org"),
        elicits("url", url="https://[bad"),
        elicits("url", url="https://example.org/" + "x" * 2_000),
        elicits("openai/form", requestedSchema={}),
        elicits(requestedSchema={"type": "object", "properties": {"a": {"type": "object"}}}),
    ],
)
async def test_what_people_are_not_asked(tmp_path: Path, asked: Act) -> None:
    log = await play(tmp_path, asked, WAITS)
    assert answer_to(tmp_path, 7)["result"] == {"action": "cancel"}
    assert (log.opened, log.receipts) == ([], {"r1": "failed"})
