"""Reading events of older schemas. What is stored is never rewritten: it is upcast each time that it is read.

`STEPS` holds one step for each version that is no longer written: it makes a message of version n one of n + 1. A step
gets a message of its own and changes it in place; it reads nothing else, so that the same bytes mean the same for ever.
Whatever is made over an event's bytes, above all the hash chain, is made over the bytes as stored, before any step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from oa_base.refusal import Refusal
from oa_runlog.events import SCHEMA_VERSION

Step = Callable[[Any], None]
"""Makes a RunEvent message of the next version out of one; `schema_version` is raised by `upcast`."""

STEPS: Mapping[int, Step] = MappingProxyType({})
"""The step out of each older version. Version 1 is the first that was ever written, so there is none yet."""


class Versioned(Protocol):
    """A message that says in which version of its schema it was written."""

    schema_version: int


M = TypeVar("M", bound=Versioned)


def upcast(message: M) -> M:
    """`message` as today's version would have written it: itself when it is of today's, else a new one.

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
