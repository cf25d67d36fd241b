"""Which answers fit a field of an MCP server's form, and how a field is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from oa_worker.adapters.codex.asking.forms import LEFT_OUT, Field, Misfit, fields_of
from oa_worker.agents.primitives.requests import Settled
from openagents.runtime.v1 import event_pb2 as pb

COLORS = {"type": "string", "enum": ["red", "blue"], "enumNames": ["Red", "Blue"]}
TITLED = {"type": "string", "oneOf": [{"const": "r", "title": "Red"}, {"const": "b", "title": "Blue"}]}
MANY = {"type": "string", "enum": [str(number) for number in range(40, 0, -1)]}
SEVERAL = {"type": "array", "items": {"type": "string", "enum": ["red", "blue", "green"]}, "minItems": 1, "maxItems": 2}


def field_of(schema: dict[str, Any], *, required: bool = True) -> Field:
    fields = fields_of({"type": "object", "properties": {"it": schema}, "required": ["it"] if required else None})
    assert fields is not None
    (field,) = fields
    return field


def said(field: Field, words: str) -> Any:
    """What somebody's answer comes to."""
    asks_for_text = field.request("server").kind == pb.REQUEST_KIND_TEXT
    return field.value_of(Settled("", words, "usr_1") if asks_for_text else Settled(words, "", "usr_1"))


@pytest.mark.parametrize(
    ("schema", "words", "value"),
    [
        ({"type": "string"}, " as it is ", " as it is "),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "abc", "abc"),
        ({"type": "string", "format": "email"}, "a@example.org", "a@example.org"),
        ({"type": "string", "format": "uri"}, "https://example.org/a", "https://example.org/a"),
        ({"type": "string", "format": "date"}, "2024-02-29", "2024-02-29"),
        ({"type": "string", "format": "date-time"}, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ({"type": "string", "format": "of tomorrow"}, "x", "x"),
        ({"type": "integer", "minimum": 0, "maximum": 5}, " 5 ", 5),
        ({"type": "number"}, "-2.5e1", -25.0),
        ({"type": "number"}, "12345678901234567890", 12345678901234567890),
        ({"type": "boolean"}, "no", False),
        (COLORS, "2", "blue"),
        (TITLED, "1", "r"),
        (MANY, "7", "7"),
        (SEVERAL, "red, 3", ["red", "green"]),
    ],
)
def test_an_answer_that_fits(schema: dict[str, Any], words: str, value: Any) -> None:
    assert said(field_of(schema), words) == value


@pytest.mark.parametrize(
    ("schema", "words", "why"),
    [
        ({"type": "string", "minLength": 2}, "a", "at least 2 characters"),
        ({"type": "string", "maxLength": 2}, "abc", "at most 2 characters"),
        ({"type": "string", "format": "email"}, "a at example.org", "no email"),
        ({"type": "string", "format": "uri"}, "example", "no uri"),
        ({"type": "string", "format": "date"}, "2023-02-29", "no date"),
        ({"type": "string", "format": "date-time"}, "2024-02-28T12:00:00", "no date-time"),
        ({"type": "integer"}, "2.5", "no whole number"),
        ({"type": "integer"}, "1_000", "no whole number"),
        ({"type": "integer"}, "9" * 301, "no whole number"),
        ({"type": "integer", "minimum": 0}, "-1", "at least 0."),
        ({"type": "integer", "maximum": 5}, "6", "at most 5."),
        ({"type": "number"}, "nan", "no number"),
        ({"type": "number"}, "1e999", "no number"),
        (MANY, "41", "none of those"),
        (SEVERAL, "red, brown", "none of those"),
        (SEVERAL, "red, blue, green", "at most 2 answers"),
    ],
)
def test_an_answer_that_does_not(schema: dict[str, Any], words: str, why: str) -> None:
    with pytest.raises(Misfit, match=why):
        said(field_of(schema), words)


def test_what_is_not_required_can_be_left_out() -> None:
    text, choice = field_of({"type": "integer"}, required=False), field_of(COLORS, required=False)
    assert "- leaves it out" in text.request("s").detail
    assert said(text, "-") is LEFT_OUT
    assert [(option.id, option.label) for option in choice.request("s").options][-1] == ("0", "Leave it out")
    assert said(choice, "0") is LEFT_OUT
    with pytest.raises(Misfit):
        said(field_of({"type": "integer"}), "-")


def test_people_are_told_what_there_is_to_know() -> None:
    field = field_of({"type": "integer", "title": "Age", "description": "In years.", "default": 7})
    asked = field.request("booking", "The answer is no whole number.")
    assert (asked.kind, asked.title) == (pb.REQUEST_KIND_TEXT, "booking: Age")
    assert asked.detail == "The answer is no whole number.\n\nIn years.\n\nProposed: 7"
    choice = field_of(COLORS).request("booking")
    assert (choice.kind, choice.title, choice.default_option) == (pb.REQUEST_KIND_CHOICE, "booking: it", "")
    assert [(option.id, option.label) for option in choice.options] == [("1", "Red"), ("2", "Blue")]
    assert "1: 40\n2: 39" in field_of(MANY).request("booking").detail


@pytest.mark.parametrize(
    "form", [None, [], {}, {"properties": {"a": {"type": "object"}}}, {"properties": {"a": {"type": "array"}}}]
)
def test_a_form_that_is_not_known(form: Any) -> None:
    assert fields_of(form) is None
