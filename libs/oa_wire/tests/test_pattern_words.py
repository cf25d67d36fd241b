"""What a text is told that does not match its pattern: words, with an example that does match."""

from __future__ import annotations

import re

import pytest

from oa_base.refusal import Refusal
from oa_wire.pattern_words import WORDS, said_of
from oa_wire.rules import check_rules
from oa_wire.tests.contracts import every_message
from openagents.common.v1 import options_pb2
from openagents.control.v1 import session_service_pb2

RULES = [field.GetOptions().Extensions[options_pb2.rules] for message in every_message() for field in message.fields]
PATTERNS = sorted({rules.pattern for rules in RULES} - {""})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_the_contracts_has_words_and_a_right_example(pattern: str) -> None:
    text = said_of(pattern)
    assert pattern not in text
    assert "; " in text
    example = re.search(r"; write one like (\S+)$", text)
    assert example or text.endswith(("send it as it came", "send the one of the latest answer"))
    if example:
        assert re.fullmatch(pattern, example[1])


def test_no_words_are_left_over() -> None:
    assert set(WORDS) <= set(PATTERNS)


def test_whoever_sends_no_id_reads_no_regular_expression() -> None:
    with pytest.raises(Refusal) as refused:
        check_rules(session_service_pb2.SwitchOrgRequest(org_id="nope"))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "org_id")
    assert refused.value.message == "this is no such id; write one like org_01JD8V0000000000000000000A"
