"""Ids of new runs."""

from __future__ import annotations

from oa_platform.system.ids import new_id
from oa_runlog.partitions import partition_of


def new_run_id(org_id: str, user_id: str, idempotency_key: str, partitions: int) -> str:
    """A new id whose run falls in the partition of the idempotency key.

    So all requests with one key meet in one sequencer, under one lock, and the second finds the first.
    """
    wanted = partition_of(f"{org_id}\0{user_id}\0{idempotency_key}", partitions)
    while True:
        run_id = new_id("run")
        if partition_of(run_id, partitions) == wanted:
            return run_id
