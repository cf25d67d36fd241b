"""How the log of receipts grows: what a page of receipts adds to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oa_runlog.proof.checkpoint import receipt_leaf
from oa_runlog.proof.merkle import Frontier, Node
from oa_runlog.proof.receipt import SignedReceipt


@dataclass(frozen=True, slots=True)
class Growth:
    """The additions of receipts to the log: `run_ids` are its leaves from `first_leaf` on; `nodes` are new."""

    first_leaf: int
    run_ids: tuple[str, ...]
    nodes: tuple[tuple[Node, bytes], ...]
    frontier: Frontier


def grow(frontier: Frontier, receipts: Sequence[SignedReceipt]) -> Growth:
    """The log with `receipts` appended, in their order."""
    first_leaf = frontier.size
    nodes: list[tuple[Node, bytes]] = []
    for receipt in receipts:
        frontier, made = frontier.append(receipt_leaf(receipt))
        nodes += made
    return Growth(first_leaf, tuple(receipt.run_id for receipt in receipts), tuple(nodes), frontier)
