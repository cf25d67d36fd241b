"""A log of receipts for tests, and a place for what was seen of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oa_client.core.models import InclusionProof
from oa_runlog.proof.checkpoint import log_origin, receipt_leaf
from oa_runlog.proof.merkle import Frontier, Node, consistency_proof, inclusion_proof
from oa_runlog.proof.signing import NoteSigner, sign_checkpoint
from oa_runlog.tests.records import KEY, Record

SIGNER = NoteSigner(log_origin("log_1"), KEY)


class Log:
    """A log of receipts as a site serves it, honest or not."""

    def __init__(self, runs: list[Record], signer: NoteSigner = SIGNER) -> None:
        self._runs = [run.run_id for run in runs]
        self._signer = signer
        self._nodes: dict[Node, bytes] = {}
        self._frontier = Frontier()
        self.asked: list[tuple[int, int]] = []
        for run in runs:
            self._frontier, made = self._frontier.append(receipt_leaf(run.receipt))
            self._nodes.update(made)

    async def inclusion_proof(self, run_id: str) -> InclusionProof:
        index, size = self._runs.index(run_id), self._frontier.size
        hashes = tuple(inclusion_proof(index, size, self._nodes))
        return InclusionProof(index, hashes, sign_checkpoint(size, self._frontier.root, self._signer))

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        self.asked.append((old_size, new_size))
        return consistency_proof(old_size, new_size, self._nodes)


class Kept:
    """A CheckpointStore in memory."""

    def __init__(self) -> None:
        self.note: bytes | None = None

    def load(self) -> bytes | None:
        return self.note

    def save(self, note: bytes) -> None:
        self.note = note

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        yield

    def forget(self) -> None:
        self.note = None
