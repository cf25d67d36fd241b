"""`eventsourcing` (PyPI): a Python library; its Postgres recorder takes a table lock for each insert."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from uuid import uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from benchmarks.measure import Append


class Peer:
    """One datastore shared by all producers, as in an application of the library; one thread for each producer."""

    def __init__(self, dsn: str, producers: int) -> None:
        address = urlsplit(dsn)
        self._datastore = PostgresDatastore(
            dbname=address.path.lstrip("/"),
            host=address.hostname or "127.0.0.1",
            port=str(address.port),
            user=address.username or "",
            password=address.password or "",
            pool_size=producers,
            max_overflow=0,
        )
        self._recorder = PostgresApplicationRecorder(self._datastore, events_table_name="stored_events")
        self._recorder.create_table()
        self._threads = ThreadPoolExecutor(producers)

    def producer(self, payload: str, batch: int = 1) -> Append:
        """An append of `batch` events to an aggregate of its own."""
        originator = uuid4()
        state = payload.encode()

        def insert(call: int) -> int:
            first = call * batch + 1
            self._recorder.insert_events(
                [StoredEvent(originator, version, "TextDelta", state) for version in range(first, first + batch)]
            )
            return batch

        async def append(call: int) -> int:
            return await asyncio.get_running_loop().run_in_executor(self._threads, insert, call)

        return append

    def close(self) -> None:
        """End the threads and connections."""
        self._threads.shutdown()
        self._datastore.close()


def version() -> str:
    """The installed version, for the report."""
    from importlib.metadata import version as installed

    return installed("eventsourcing")
