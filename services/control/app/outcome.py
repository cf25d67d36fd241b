"""A refusal that must be remembered: counted guesses and audit rows are committed, and only then is it raised."""

from __future__ import annotations

from typing import TypeVar

from oa_base.refusal import Refusal

T = TypeVar("T")


def settled(outcome: T | Refusal) -> T:
    """The value, after the transaction that produced it was committed. Raises it when it is a Refusal."""
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome
