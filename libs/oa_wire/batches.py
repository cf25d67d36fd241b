"""Several messages of a stream as one: each costs gRPC more than what most of them say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

MAX_BATCH_BYTES = 256 * 1024
"""Largest batch of more than one message."""


def batches(messages: Iterable[M], max_bytes: int = MAX_BATCH_BYTES) -> Iterator[list[M]]:
    """The messages in order, as many together as may be; one that is larger is alone."""
    batch: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if batch and size > max_bytes:
            yield batch
            batch, size = [], message.ByteSize()
        batch.append(message)
    if batch:
        yield batch
