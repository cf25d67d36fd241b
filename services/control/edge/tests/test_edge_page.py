"""What docs/protocol/edge.md tells programs of others is what the edge does."""

from __future__ import annotations

import json
import re

import pytest

from oa_base.refusal import Refusal
from oa_testing.postgres import REPOSITORY
from oa_wire.connect import to_connect
from oa_wire.rules import check_rules
from oa_wire.strict.json import merge_json
from openagents.control.v1 import service_account_service_pb2
from openagents.runtime.v1 import event_pb2, run_service_pb2
from services.control.tokens.domain import ACCESS_TTL, API_KEY_EDGE_TTL

PAGE = (REPOSITORY / "docs/protocol/edge.md").read_text("utf-8")
MEMBERS = re.findall(r"^\| `(\".*)` \| (taken|`\w+`)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("member", "answer"), MEMBERS)
def test_a_member_of_a_spec_is_taken_or_refused_as_the_page_says(member: str, answer: str) -> None:
    given = "" if member.startswith('"exec"') else ', "exec": {"argv": ["a"]}'
    spec = event_pb2.RunSpec()
    reason = ""
    try:
        merge_json(f'{{"adapter": "exec"{given}, {member}}}', spec)
        check_rules(spec)
    except Refusal as refusal:
        reason = refusal.reason
    assert answer.strip("`") == (reason or "taken")


def test_the_page_has_members_that_are_taken_and_that_are_refused() -> None:
    assert {answer for _, answer in MEMBERS} == {"taken", "`malformed_message`", "`invalid_value`", "`invalid_enum`"}


def test_two_members_of_a_oneof_are_told_so() -> None:
    both = '{"spec": {"exec": {"argv": ["a"]}, "prompt": {"text": "a"}}}'
    with pytest.raises(Refusal, match="spec has two members of input; send one") as caught:
        merge_json(both, run_service_pb2.CreateRunRequest())
    assert caught.value.field == "spec"
    one = run_service_pb2.CreateRunRequest()
    merge_json('{"spec": {"exec": null, "prompt": {"text": "a"}}}', one)
    assert one.spec.prompt.text == "a"


def test_the_error_on_the_page_is_the_edges() -> None:
    shown = next(text for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    refusal = Refusal("not_found", "there is no such run that you may see; check the id", field="run_id")
    assert json.loads(shown) == json.loads(to_connect(refusal))


def test_the_exchange_of_a_key_on_the_page_is_one() -> None:
    shown = re.search(r'`(\{"apiKey".*?\})`', PAGE)
    assert shown is not None
    request = service_account_service_pb2.ExchangeKeyRequest()
    merge_json(shown.group(1), request)
    check_rules(request)
    assert request.use == service_account_service_pb2.TOKEN_USE_EDGE


def test_the_lifetimes_and_keys_on_the_page_are_those_of_the_code() -> None:
    assert ACCESS_TTL.total_seconds() == API_KEY_EDGE_TTL.total_seconds() == 3600
    assert PAGE.count("valid for an hour") == 2
    run_id = "run_" + "0" * 26
    for request in (
        run_service_pb2.CreateRunRequest(idempotency_key="k" * 129),
        run_service_pb2.SendInputRequest(idempotency_key="k" * 65, run_id=run_id),
    ):
        with pytest.raises(Refusal) as caught:
            check_rules(request)
        assert caught.value.field == "idempotency_key"
    assert "A key is 1 to 128 of `[A-Za-z0-9._:-]` for a run, and 1 to 64 for an input." in " ".join(PAGE.split())
