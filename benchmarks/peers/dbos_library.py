"""`dbos` (PyPI): durable functions as a library; its steps are rows of its own table in the same Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from dbos import DBOS

Flow = Callable[[int], Awaitable[int]]


@contextmanager
def flow(dsn: str) -> Iterator[Flow]:
    """A durable function with as many steps as its argument says, called in this process: the minimum that the library
    does for one. Its tables are in a database `dbos`, which it creates beside that of `dsn`."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": urlunsplit(urlsplit(dsn)._replace(scheme="postgresql", path="/dbos")),
            "log_level": "ERROR",
        }
    )

    @DBOS.step()
    async def add(number: int) -> int:
        return number + 1

    @DBOS.workflow()
    async def adding(steps: int) -> int:
        number = 0
        for _ in range(steps):
            number = await add(number)
        return number

    DBOS.launch()
    try:
        yield adding
    finally:
        DBOS.destroy(destroy_registry=True)


def version() -> str:
    """The installed version, for the report."""
    from importlib.metadata import version as installed

    return installed("dbos")
