"""The hello of a worker that attaches, and the notices that it gets over its stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal
from services.runtime.agents.domain import Agent
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.records import RunRecord


@dataclass(frozen=True, slots=True)
class Hello:
    """How a worker introduces itself. `worker_id` is empty for a new worker."""

    worker_id: str
    name: str
    adapters: tuple[str, ...]
    max_concurrent_runs: int
    held: Sequence[HeldLease]
    agents: tuple[Agent, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that a worker believes it holds."""

    run_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run to execute."""

    run: RunRecord
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class CancelNotice:
    """Tells the worker to end a run."""

    run_id: str
    lease_epoch: int
    reason: str
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class LeaseLostNotice:
    """A lease is gone."""

    run_id: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class AppendAnswer:
    """The answer to an append."""

    request_id: int
    run_id: str
    answer: Applied | Refusal


@dataclass(frozen=True, slots=True)
class DrainingNotice:
    """This replica is shutting down."""

    reconnect_after_ms: int


@dataclass(frozen=True, slots=True)
class RunNews:
    """An event that others have written to a run, by its seq."""

    run_id: str
    lease_epoch: int
    seq: int


Notice = Assignment | CancelNotice | RunNews | LeaseLostNotice | AppendAnswer | DrainingNotice
