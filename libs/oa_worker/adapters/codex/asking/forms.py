"""The fields of an MCP server's form: how each is asked for, and which answers fit it. Pure.

A field of given values is a choice; any other field is a text, which is checked against the field's type. A field that
is not required can be left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

from oa_worker.adapters.codex.asking.questions import MAX_OPTIONS, asked_for, detail_of, dicts, title_of
from oa_worker.agents.primitives.requests import Settled
from openagents.runtime.v1 import event_pb2 as pb

Schema = Mapping[str, Any]
LEFT_OUT = object()
"""The value of a field that a person leaves out."""
_LEAVE_OUT_OPTION, _LEAVE_OUT_TEXT = "0", "-"


class Misfit(Exception):
    """An answer does not fit its field; the text says what would fit."""


@dataclass(frozen=True)
class Field:
    """One field. `labels`: option's id -> what people are shown; empty for a text. `values`: option's id -> value."""

    name: str
    title: str
    detail: str
    required: bool
    read: Callable[[str], Any] = str
    """Returns a text's value. Raises Misfit."""
    labels: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def request(self, server: str, before: str = "") -> pb.RequestOpened:
        """Return the request for the field; `before`: what is wrong with the previous answer."""
        labels, leave_out = self.labels, ""
        if not self.required:
            labels = {**labels, _LEAVE_OUT_OPTION: "Leave it out"} if labels else labels
            leave_out = "" if labels else f"Not required: {_LEAVE_OUT_TEXT} leaves it out."
        return asked_for(title_of(f"{server}: {self.title}"), detail_of(before, self.detail, leave_out), labels)

    def value_of(self, settled: Settled) -> Any:
        """Return the value that was answered, or LEFT_OUT. Raises Misfit."""
        if self.labels:
            return self.values.get(settled.option, LEFT_OUT)
        if not self.required and settled.text == _LEAVE_OUT_TEXT:
            return LEFT_OUT
        return self.read(settled.text)


def fields_of(form: Any) -> list[Field] | None:
    """Return the fields of a form; None for a form with a field that is not known here."""
    properties = form.get("properties") if isinstance(form, dict) else None
    if not isinstance(properties, dict):
        return None
    needed = form.get("required")
    required = needed if isinstance(needed, list) else []
    found = [_field_of(str(name), schema, name in required) for name, schema in properties.items()]
    fields = [each for each in found if each is not None]
    return fields if len(fields) == len(found) else None


def _field_of(name: str, schema: Any, required: bool) -> Field | None:
    if not isinstance(schema, dict):
        return None
    title, proposed = str(schema.get("title") or name), schema.get("default")
    notes = [str(schema.get("description") or ""), f"Proposed: {proposed}" if proposed is not None else ""]
    several = schema.get("type") == "array"
    values = _values_of(schema.get("items") if several else schema)
    if values and not several and len(values) + (not required) <= MAX_OPTIONS:
        labels = {number: label for number, (label, _) in values.items()}
        chosen = {number: value for number, (_, value) in values.items()}
        return Field(name, title, detail_of(*notes), required, labels=labels, values=chosen)
    read = _reader_of_values(values, schema, several=several) if values else _reader_of(schema)
    if values:
        notes.append("Several of these, with commas between them:" if several else "One of these:")
        notes.append("\n".join(f"{number}: {label}" for number, (label, _) in values.items()))
    return None if read is None else Field(name, title, detail_of(*notes), required, read)


def _values_of(schema: Any) -> dict[str, tuple[str, Any]]:
    """Option's id -> what is shown, and its value; empty for a field of any value."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("type") == "boolean":
        return {"yes": ("yes", True), "no": ("no", False)}
    told = dicts(schema.get("oneOf")) or dicts(schema.get("anyOf"))
    titled = [(str(each.get("title") or each["const"]), each["const"]) for each in told if "const" in each]
    if isinstance(plain := schema.get("enum"), list):
        names = schema.get("enumNames")
        names = names if isinstance(names, list) and len(names) == len(plain) else plain
        titled = [(str(name), value) for name, value in zip(names, plain, strict=True)]
    return {str(number): each for number, each in enumerate(titled, start=1)}


def _reader_of(schema: Schema) -> Callable[[str], Any] | None:
    match schema.get("type"):
        case "string":
            return lambda text: _string(text, schema)
        case "integer":
            return lambda text: _number(text, schema, whole=True)
        case "number":
            return lambda text: _number(text, schema, whole=False)
    return None


def _reader_of_values(values: Mapping[str, tuple[str, Any]], schema: Schema, *, several: bool) -> Callable[[str], Any]:
    """Read values given as such, by the text that is shown, or by number; this order decides between equal names."""
    known = {number: value for number, (_, value) in values.items()}
    known |= dict(values.values())
    known |= {str(value): value for _, value in values.values()}

    def one(word: str) -> Any:
        if word.strip() not in known:
            raise Misfit("The answer is none of those that there are.")
        return known[word.strip()]

    def some(text: str) -> Any:
        chosen = [one(word) for word in text.split(",")]
        _within(len(chosen), schema, "minItems", "maxItems", "answers")
        return chosen

    return some if several else one


def _string(text: str, schema: Schema) -> str:
    _within(len(text), schema, "minLength", "maxLength", "characters")
    fits = _FORMATS.get(str(schema.get("format")))
    if fits is not None and not fits(text):
        raise Misfit(f"The answer is no {schema['format']}.")
    return text


def _number(text: str, schema: Schema, *, whole: bool) -> int | float:
    words = text.strip()
    try:
        value = int(words) if _WHOLE.fullmatch(words) else None if whole else float(words)
    except ValueError:
        value = None
    if value is None or not math.isfinite(value):
        raise Misfit(f"The answer is no {'whole ' if whole else ''}number.")
    _within(value, schema, "minimum", "maximum", "")
    return value


def _within(value: float, schema: Schema, minimum: str, maximum: str, unit: str) -> None:
    low, high = schema.get(minimum), schema.get(maximum)
    if isinstance(low, int | float) and value < low:
        raise Misfit(f"The answer has to be at least {low} {unit}".rstrip() + ".")
    if isinstance(high, int | float) and value > high:
        raise Misfit(f"The answer has to be at most {high} {unit}".rstrip() + ".")


def _holds(check: Callable[[str], object]) -> Callable[[str], bool]:
    """Make a test of whether something is true of a text; a check that raises ValueError is false."""

    def holds(text: str) -> bool:
        try:
            return bool(check(text))
        except ValueError:
            return False

    return holds


_WHOLE = re.compile(r"-?[0-9]{1,300}")
_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "email": _holds(lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text)),
    "uri": _holds(lambda text: re.fullmatch(r"\S+", text) and urlsplit(text).scheme),
    "date": _holds(lambda text: re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) and date.fromisoformat(text)),
    "date-time": _holds(lambda text: "T" in text and datetime.fromisoformat(text).tzinfo),
}
