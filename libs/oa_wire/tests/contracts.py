"""Every message of the contracts, as `gen/` has them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor

import openagents


def every_message() -> Iterator[Descriptor]:
    """All of them, also those within others."""
    for module in pkgutil.walk_packages(openagents.__path__, f"{openagents.__name__}."):
        if module.name.endswith("_pb2"):
            yield from _within(importlib.import_module(module.name).DESCRIPTOR.message_types_by_name.values())


def _within(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        yield message
        yield from _within(message.nested_types)
