"""Transactions in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from oa_platform.postgres.pool import Connection, Postgres

T = TypeVar("T")


class PostgresTransactions(Generic[T]):
    """See `app.Transactions`. `tables` makes the tables' objects on a connection."""

    def __init__(self, postgres: Postgres, tables: Callable[[Connection], T]) -> None:
        self._postgres = postgres
        self._tables = tables

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[T]:
        """Commits when the block ends, rolls back when it raises."""
        async with self._postgres.transaction() as connection:
            yield self._tables(connection)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[T]:
        """Each statement is a transaction by itself."""
        async with self._postgres.acquire() as connection:
            yield self._tables(connection)
