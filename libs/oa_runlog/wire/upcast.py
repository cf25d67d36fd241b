"""Reading events of older schemas. Stored events are never rewritten: they are upcast each time they are read.

`STEPS` holds one step for each version that is no longer written; it turns a message of version n into one of n + 1. A
step gets its own message and changes it in place. It reads nothing else, so that the same bytes mean the same for ever.
Everything computed over an event's bytes, above all the hash chain, uses the bytes as stored, before any step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from oa_base.refusal import Refusal
from oa_runlog.events import SCHEMA_VERSION

Step = Callable[[Any], None]
"""Turns a RunEvent message into one of the next version; `upcast` raises `schema_version`."""

STEPS: Mapping[int, Step] = MappingProxyType({})
"""The step out of each older version. Version 1 is the first that was ever written, so there is none yet."""


class Versioned(Protocol):
    """A message that has the version of the schema in which it was written."""

    schema_version: int


M = TypeVar("M", bound=Versioned)


def upcast(message: M) -> M:
    """Return `message` as today's version would have written it: itself if it is of that version, else a new one.

    Raises Refusal `unsupported_schema_version` for a newer version, and for one that no step leads out of.
    """
    if message.schema_version == SCHEMA_VERSION:
        return message
    if message.schema_version > SCHEMA_VERSION:
        raise _unsupported(message.schema_version)
    current = copy.deepcopy(message)
    for version in range(message.schema_version, SCHEMA_VERSION):
        step = STEPS.get(version)
        if step is None:
            raise _unsupported(message.schema_version)
        step(current)
        current.schema_version = version + 1
    return current


def _unsupported(version: int) -> Refusal:
    oldest = min(STEPS, default=SCHEMA_VERSION)
    readable = f"{oldest} to {SCHEMA_VERSION}" if oldest < SCHEMA_VERSION else f"{SCHEMA_VERSION}"
    text = f"events of schema {version} can't be read here; this version reads {readable}"
    return Refusal("unsupported_schema_version", text, field="schema_version")
