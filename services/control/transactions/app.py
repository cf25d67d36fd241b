"""One database transaction, and what a use case needs from it.

Each feature says in a Protocol which tables it uses within a transaction; `wiring` makes the one object that has all
of them. So features share transactions without knowing each other's tables.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from oa_base.refusal import Refusal

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Transactions(Protocol[T_co]):
    """Gives access to the tables that `T_co` names. Raises Refusal `unavailable` when the database can't be reached."""

    def begin(self) -> AbstractAsyncContextManager[T_co]:
        """Commits when the block ends, rolls back when it raises."""
        ...

    def autocommit(self) -> AbstractAsyncContextManager[T_co]:
        """Each statement is a transaction by itself. This saves two round trips to the database for a single one."""
        ...


def settled(outcome: T | Refusal) -> T:
    """Return the value of a transaction that was committed. Raises it when it is a Refusal.

    For refusals that must be remembered: counted guesses and audit rows are committed before the refusal is raised.
    """
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome
