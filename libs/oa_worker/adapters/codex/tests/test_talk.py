"""What Codex asks, and what becomes of it: never a yes that nobody gave."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_wire.rules import check_rules
from oa_worker.adapters.codex.events import TurnEvents
from oa_worker.adapters.codex.limits import CodexLimits
from oa_worker.adapters.codex.talk import Questions
from oa_worker.adapters.codex.tests.odd import JSON
from oa_worker.adapters.codex.tests.rig import (
    BEGUN,
    MINE,
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
from oa_worker.agents.primitives.requests import Settled
from openagents.runtime.v1 import event_pb2 as pb


@pytest.mark.parametrize(
    ("option", "decision", "became"), [("yes", "accept", "applied"), ("no", "decline", "declined")]
)
async def test_an_answer_reaches_the_app_server(tmp_path: Path, option: str, decision: str, became: str) -> None:
    log = Log(answers={"Run rm all?": option})
    await play(tmp_path, asks(7, command="rm all", cwd="/x", reason="to tidy"), {"await": 7}, log=log)
    assert answer_to(tmp_path, 7)["result"] == {"decision": decision}
    assert log.receipts == {"r1": became}
    assert log.kinds == [
        "item thread",
        "step_completed",
        "control_request",
        "request_opened",
        "request_answered",
        "control_receipt",
        "turn completed",
    ]
    opened = next(event.request_opened for event in log.events if event.HasField("request_opened"))
    assert opened.detail == "rm all\n\nIn /x.\n\nto tidy"


@pytest.mark.parametrize("in_vain", ["no", ""])
async def test_a_deadline_is_a_no(tmp_path: Path, in_vain: str) -> None:
    log = Log(in_vain=in_vain)
    await play(tmp_path, asks(7, command="rm all"), {"await": 7}, log=log, approval_timeout_ms=1)
    assert answer_to(tmp_path, 7)["result"] == {"decision": "decline"}
    assert log.receipts == {"r1": "expired"}


async def test_a_turn_that_ends_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    log = await play(tmp_path, asks(7, command="rm all"))
    assert heard(tmp_path, "7") == []
    assert log.receipts == {"r1": "expired"}


async def test_a_cancel_is_no_yes(tmp_path: Path) -> None:
    log = Log()
    script = {
        "turn/start": [BEGUN, asks(7, command="rm all")],
        "turn/interrupt": [{"result": {}}, completed("interrupted")],
    }
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, script), run, log) as working:
        await log.until(lambda log: "request_opened" in log.kinds)
        run.cancel.request("no", 0)
        finish = await working
    assert finish.outcome == pb.RUN_OUTCOME_CANCELED
    assert heard(tmp_path, "7") == []
    assert log.receipts == {"r1": "expired"}


async def test_what_is_asked_after_the_turn_is_over_is_not_passed_on(tmp_path: Path) -> None:
    both = "\n".join(json.dumps(act["say"]) for act in (completed(), asks(7, command="rm all")))
    log, adapter = Log(), scripted(tmp_path, {"turn/start": [BEGUN, {"raw": both}, {"hang": True}]})
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(adapter, run, log) as working:
        assert (await working).outcome == pb.RUN_OUTCOME_SUCCEEDED
    assert (log.opened, log.receipts) == ([], {"r1": "expired"})


async def test_what_is_asked_after_a_cancel_is_not_passed_on(tmp_path: Path) -> None:
    asked = [asks(7, command="rm all"), {"hang": True}]
    log, adapter = Log(), scripted(tmp_path, {"turn/start": [BEGUN, asks(6)], "turn/interrupt": asked})
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(adapter, run, log) as working:
        await log.until(lambda log: len(log.opened) == 1)
        run.cancel.request("enough", 0)
        assert (await working).outcome == pb.RUN_OUTCOME_CANCELED
    assert (len(log.opened), log.receipts) == (1, {"r1": "expired", "r2": "expired"})


async def test_several_are_asked_at_a_time(tmp_path: Path) -> None:
    log = Log(answers={"Run one?": "yes", "Run two?": "no"})
    acts = [BEGUN, asks(7, command="one"), asks(8, command="two")]
    both = {"turn/start": acts, "turn/steer": [{"result": {}}, completed()]}
    run = assignment(log, {"prompt": "p", "working_directory": str(tmp_path)})
    async with at_work(scripted(tmp_path, both), run, log) as working:
        await log.until(lambda log: len(log.receipts) == 2)
        log.send("go on")
        await working
    assert answer_to(tmp_path, 7)["result"] == {"decision": "accept"}
    assert answer_to(tmp_path, 8)["result"] == {"decision": "decline"}
    assert log.receipts == {"r1": "applied", "r2": "declined", "input-1": "applied"}


async def test_more_than_the_limit_are_declined(tmp_path: Path) -> None:
    log = await play(
        tmp_path, asks(7, command="one"), asks(8, command="two"), {"await": 8}, limits=CodexLimits(max_open_requests=1)
    )
    assert answer_to(tmp_path, 8)["result"] == {"decision": "decline"}
    assert log.receipts == {"r1": "expired", "r2": "failed"}
    assert log.titles == ["Run one?"]


@pytest.mark.parametrize(("option", "granted"), [("yes", {"network": {"enabled": True}}), ("no", {})])
async def test_more_rights_are_given_for_the_turn_only(tmp_path: Path, option: str, granted: dict[str, Any]) -> None:
    log = Log(answers={"Give more rights for this turn?": option})
    method = "item/permissions/requestApproval"
    await play(tmp_path, asks(7, method, permissions={"network": {"enabled": True}}), {"await": 7}, log=log)
    result = answer_to(tmp_path, 7)["result"]
    assert result["permissions"] == granted
    assert result.get("scope", "turn") == "turn"


async def test_what_a_newer_version_asks_is_refused_and_kept(tmp_path: Path) -> None:
    log = await play(tmp_path, asks(7, "item/somethingNew/request", what="?"), {"await": 7})
    assert answer_to(tmp_path, 7)["error"]["code"] == -32601
    assert log.items("item/somethingNew/request") == [{**MINE, "what": "?"}]
    assert "request_opened" not in log.kinds


async def test_a_question_is_cut_to_what_a_request_holds(tmp_path: Path) -> None:
    log = await play(tmp_path, asks(7, command="x" * 100_000 + "\0\ud800"), {"await": 7}, approval_timeout_ms=1)
    opened = next(event.request_opened for event in log.events if event.HasField("request_opened"))
    assert opened.title.endswith("…?")
    assert len(opened.title) == 200
    assert "cut here" in opened.detail


METHODS = ["item/tool/requestUserInput", "mcpServer/elicitation/request"]
METHODS += [f"item/{kind}/requestApproval" for kind in ("commandExecution", "fileChange", "permissions")]
FIELD = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "boolean", "integer", "number", "array", "odd"])},
    optional={
        "title": JSON,
        "enum": st.lists(JSON, max_size=40),
        "oneOf": st.lists(st.fixed_dictionaries({"const": JSON, "title": JSON}), max_size=3),
        "items": st.fixed_dictionaries({"enum": st.lists(st.text(), max_size=3)}),
        **dict.fromkeys(["default", "minimum", "maximum", "minLength", "maxItems", "format", "description"], JSON),
    },
)
FORM = st.fixed_dictionaries({"properties": st.dictionaries(st.text(), FIELD, max_size=3), "required": JSON})
OPTION = st.fixed_dictionaries({"label": JSON, "description": JSON})
ASKED = st.fixed_dictionaries({"id": JSON, "question": JSON, "options": JSON | st.lists(OPTION, max_size=40)})
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["command", "cwd", "reason", "itemId", "grantRoot", "permissions", "serverName"], JSON),
        **dict.fromkeys(["message", "_meta"], JSON),
        "mode": st.sampled_from(["form", "url"]) | JSON,
        "url": st.just("https://example.org/a") | JSON,
        "requestedSchema": FORM | JSON,
        "questions": st.lists(ASKED, max_size=3) | JSON,
    },
)


@given(st.sampled_from(METHODS), PARAMS, st.data())
def test_whatever_is_asked_is_a_question_that_a_log_takes(
    method: str, params: dict[str, Any], data: st.DataObject
) -> None:
    async def ask(opened: pb.RequestOpened) -> Settled:
        opened.request_id = "r1"
        check_rules(opened)
        names = [option.id for option in opened.options] or ["yes", "no"]
        assert len(set(names)) == len(names)
        if not data.draw(st.booleans()):
            return Settled(opened.default_option, "", "")
        if opened.kind == pb.REQUEST_KIND_TEXT:
            return Settled("", data.draw(st.text(min_size=1)), "usr_1")
        return Settled(data.draw(st.sampled_from(names)), "", "usr_1")

    questions = Questions(
        Mock(), TurnEvents("T", "m", CodexLimits()), Mock(), Mock(), CodexLimits(), timedelta(hours=1)
    )
    questions.note({"item": {"type": "fileChange", "id": str(params.get("itemId")), "changes": [params, None]}})
    question = questions._question(method, params)
    assert question is not None
    reply = asyncio.run(question.decide(ask))
    assert json.loads(json.dumps(reply.result)) is not None
    assert reply.outcome
