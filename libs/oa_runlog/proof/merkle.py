"""Merkle trees as in RFC 6962, section 2: roots, proofs that a leaf is in a log, proofs that a log only grew.

A log of n leaves consists of *nodes*, the roots of its perfect subtrees: node (level, offset) is over the 2^level
leaves from offset · 2^level on, and never changes once these leaves exist. So a log stores each node once, when it
comes into being (`Frontier.append` returns the new ones). Any root or proof needs a logarithm of the nodes: `…_nodes`
returns which, and the function beside it makes the proof from their hashes.

    leaf = SHA-256(0x00 ‖ data)      inner = SHA-256(0x01 ‖ left ‖ right)      empty = SHA-256("")

Verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2, and shares no code with the making of proofs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from oa_base.refusal import Refusal

HASH_BYTES = 32
"""Length of a SHA-256."""
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of the tree without leaves."""


class Node(NamedTuple):
    """The root of a perfect subtree: over the leaves from `offset` · 2^`level` up to (`offset` + 1) · 2^`level`."""

    level: int
    offset: int


class Span(NamedTuple):
    """The leaves from `start` up to, not including, `end`: a subtree, perfect or the ragged right end of one."""

    start: int
    end: int


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf: 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Hash of the node over two subtrees: 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


# ------------------------------------------------------------------------------------------------- growing


@dataclass(frozen=True, slots=True)
class Frontier:
    """Everything needed to append to a log and to compute its root: the hashes of its largest perfect subtrees.

    There is one for each 1 in the binary form of `size`, the leftmost and largest first.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.hashes) != self.size.bit_count() or any(len(one) != HASH_BYTES for one in self.hashes):
            raise ValueError("the hashes are not those of a log of this size")

    @property
    def root(self) -> bytes:
        """Root of the log."""
        return _fold(self.hashes)

    def append(self, leaf: bytes) -> tuple[Frontier, list[tuple[Node, bytes]]]:
        """The frontier with one more leaf hash, and the new nodes, the leaf first."""
        hashes, level, offset, current = list(self.hashes), 0, self.size, leaf
        made = [(Node(0, offset), leaf)]
        while offset & 1:
            level, offset = level + 1, offset >> 1
            current = inner_hash(hashes.pop(), current)
            made.append((Node(level, offset), current))
        return Frontier(self.size + 1, (*hashes, current)), made


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that are side by side, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    *left, root = hashes
    for one in reversed(left):
        root = inner_hash(one, root)
    return root


# ------------------------------------------------------------------------------------------------- making proofs


def inclusion_nodes(index: int, size: int) -> list[Node]:
    """The nodes that `inclusion_proof` needs. Raises ValueError when there is no leaf `index` in a log of `size`."""
    return _all_nodes(_inclusion_spans(index, size))


def inclusion_proof(index: int, size: int, hashes: Mapping[Node, bytes]) -> list[bytes]:
    """The audit path of leaf `index` in a log of `size` leaves, from the leaf up (RFC 6962, 2.1.1)."""
    return [_span_root(span, hashes) for span in _inclusion_spans(index, size)]


def consistency_nodes(old_size: int, new_size: int) -> list[Node]:
    """The nodes that `consistency_proof` needs. Raises ValueError unless 0 < old_size <= new_size."""
    return _all_nodes(_consistency_spans(old_size, new_size))


def consistency_proof(old_size: int, new_size: int, hashes: Mapping[Node, bytes]) -> list[bytes]:
    """The proof that the log of `old_size` is the beginning of the log of `new_size` (RFC 6962, 2.1.2)."""
    return [_span_root(span, hashes) for span in _consistency_spans(old_size, new_size)]


def _inclusion_spans(index: int, size: int) -> list[Span]:
    if not 0 <= index < size:
        raise ValueError(f"a log of {size} leaves has no leaf {index}")
    spans, here = [], Span(0, size)
    while here.end - here.start > 1:
        left, right = _halves(here)
        here, beside = (left, right) if index < left.end else (right, left)
        spans.append(beside)
    return spans[::-1]


def _consistency_spans(old_size: int, new_size: int) -> list[Span]:
    if not 0 < old_size <= new_size:
        raise ValueError(f"no log of {new_size} leaves continues one of {old_size}")
    spans, here, is_old_root = [], Span(0, new_size), True
    while here.end != old_size:
        left, right = _halves(here)
        if old_size <= left.end:
            here = left
            spans.append(right)
        else:
            here, is_old_root = right, False
            spans.append(left)
    # The verifier has the old root; the subtree at the old end is sent only when its root is not the old root.
    return ([] if is_old_root else [here]) + spans[::-1]


def _halves(span: Span) -> tuple[Span, Span]:
    """A subtree's children: the left one is the largest perfect tree that leaves something for the right one."""
    middle = span.start + (1 << (span.end - span.start - 1).bit_length() - 1)
    return Span(span.start, middle), Span(middle, span.end)


def _nodes_of(span: Span) -> list[Node]:
    """The perfect subtrees in a span, the largest first. The span begins where a subtree of its size may begin."""
    nodes, start = [], span.start
    while start < span.end:
        level = (span.end - start).bit_length() - 1
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


def _all_nodes(spans: Iterable[Span]) -> list[Node]:
    return [node for span in spans for node in _nodes_of(span)]


def _span_root(span: Span, hashes: Mapping[Node, bytes]) -> bytes:
    return _fold([hashes[node] for node in _nodes_of(span)])


# ------------------------------------------------------------------------------------------------- checking proofs


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash `leaf` is number `index`, from 0, of the log with `size` leaves and this `root`.

    Raises Refusal(not_in_log).
    """
    if not 0 <= index < size or any(len(one) != HASH_BYTES for one in proof):
        raise _not_in_log(f"a log of {size} leaves has no leaf {index}, or the proof is none")
    place, last, current = index, size - 1, leaf
    for beside in proof:
        if last == 0:
            raise _not_in_log("the proof is too long")
        if place & 1 or place == last:
            current = inner_hash(beside, current)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            current = inner_hash(current, beside)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise _not_in_log("the proof is too short")
    if current != root:
        raise _not_in_log("the proof does not lead to the log's root")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the log (`old_size`, `old_root`) is the beginning of the log (`new_size`, `new_root`).

    Raises Refusal(log_rolled_back) when the new log is shorter, and Refusal(log_forked) when it does not continue the
    old one. Every log continues the empty log, with an empty proof.
    """
    if new_size < old_size:
        raise Refusal("log_rolled_back", f"the log has {new_size} leaves; {old_size} were seen before")
    if any(len(one) != HASH_BYTES for one in proof):
        raise _forked("the proof holds what is no hash")
    if old_size in (0, new_size):
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected:
            raise _forked("logs of the same size have other roots" if old_size else "the proof must be empty")
        return
    _verify_growth(old_size, old_root, new_size, new_root, proof)


def _verify_growth(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not path:
        raise _forked("the proof is too short")
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for beside in path[1:]:
        if last == 0:
            raise _forked("the proof is too long")
        if place & 1 or place == last:
            old, new = inner_hash(beside, old), inner_hash(beside, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = inner_hash(new, beside)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise _forked("the proof is too short")
    if (old, new) != (old_root, new_root):
        raise _forked("the proof does not lead from the one root to the other")


def _not_in_log(text: str) -> Refusal:
    return Refusal("not_in_log", text)


def _forked(text: str) -> Refusal:
    return Refusal("log_forked", text)
