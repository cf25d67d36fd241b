"""Batches of messages in a stream: a message costs gRPC more than the content of most messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

MAX_BATCH_BYTES = 256 * 1024
"""Maximum size of a batch of more than one message."""


def batches(messages: Iterable[M], max_bytes: int = MAX_BATCH_BYTES) -> Iterator[list[M]]:
    """Yield the messages in order, as many per batch as fit; a larger message is alone in its batch."""
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
