"""Merkle trees against the RFC's own recursive definition, its published vectors, and every mutation of a proof."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_runlog.proof import merkle
from oa_runlog.proof.merkle import EMPTY_ROOT, Frontier, Node, leaf_hash

# The test data of the reference implementation of RFC 6962 (certificate-transparency, merkle_tree_test.cc).
LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
)]  # fmt: skip
ROOTS = [bytes.fromhex(text) for text in (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)]  # fmt: skip


class Log:
    """A log in memory: what a service keeps in a table."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.frontier = Frontier()
        self.nodes: dict[Node, bytes] = {}
        self.roots = [self.frontier.root]
        for leaf in leaves:
            self.frontier, made = self.frontier.append(leaf)
            assert not self.nodes.keys() & dict(made).keys()  # a node is stored once
            self.nodes.update(made)
            self.roots.append(self.frontier.root)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return merkle.inclusion_proof(
            index, size, {node: self.nodes[node] for node in merkle.inclusion_nodes(index, size)}
        )

    def consistency(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(
            old, new, {node: self.nodes[node] for node in merkle.consistency_nodes(old, new)}
        )


def log_of(size: int) -> Log:
    return Log([leaf_hash(b"%d" % number) for number in range(size)])


# ------------------------------------------------------------------------- the definitions of RFC 6962, word by word


def split(size: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def perfect_trees(leaves: list[bytes]) -> list[list[bytes]]:
    """The leaves of the full subtrees that stand side by side, the largest first: one for each bit of the size."""
    trees, start = [], 0
    for bit in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> bit & 1:
            trees.append(leaves[start : start + (1 << bit)])
            start += 1 << bit
    return trees


def mth(leaves: list[bytes]) -> bytes:
    """Section 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """Section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


# ------------------------------------------------------------------------------------------------- tests


def test_roots_are_those_that_are_published() -> None:
    log = Log([leaf_hash(leaf) for leaf in LEAVES])
    assert log.roots == [EMPTY_ROOT, *ROOTS]


def test_proofs_are_those_that_are_published() -> None:
    log = Log([leaf_hash(leaf) for leaf in LEAVES])
    assert [one.hex()[:8] for one in log.inclusion(0, 8)] == ["96a296d2", "5f083f0a", "6b47aaf2"]
    assert [one.hex()[:8] for one in log.inclusion(5, 8)] == ["bc1a0643", "ca854ea1", "d37ee418"]
    assert [one.hex()[:8] for one in log.consistency(6, 8)] == ["0ebc5d34", "ca854ea1", "d37ee418"]
    assert [one.hex()[:8] for one in log.consistency(2, 5)] == ["5f083f0a", "bc1a0643"]


@pytest.mark.parametrize("size", range(34))
def test_everything_is_as_the_rfc_defines_it(size: int) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(size)]
    log = Log(leaves)
    assert log.frontier.root == mth(leaves)
    assert log.frontier.hashes == tuple(mth(perfect) for perfect in perfect_trees(leaves))
    for index in range(size):
        proof = log.inclusion(index, size)
        assert proof == path(index, leaves)
        merkle.verify_inclusion(leaves[index], index, size, proof, log.roots[size])
    for old in range(1, size + 1):
        proof = log.consistency(old, size)
        assert proof == subproof(old, leaves, True)
        merkle.verify_consistency(old, log.roots[old], size, log.roots[size], proof)


@given(st.data())
def test_proofs_of_larger_logs_hold_and_are_short(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700), label="size")
    index = data.draw(st.integers(0, size - 1), label="index")
    old = data.draw(st.integers(1, size), label="old size")
    log = log_of(size)
    inclusion, consistency = log.inclusion(index, size), log.consistency(old, size)
    assert len(inclusion) <= size.bit_length()
    assert len(merkle.inclusion_nodes(index, size)) <= 2 * size.bit_length()
    assert len(consistency) <= size.bit_length() + 1
    merkle.verify_inclusion(leaf_hash(b"%d" % index), index, size, inclusion, log.roots[size])
    merkle.verify_consistency(old, log.roots[old], size, log.roots[size], consistency)


def mutations(proof: list[bytes]) -> list[list[bytes]]:
    """Proofs that are not this one: a bit changed anywhere, one hash left out, doubled, swapped, added, cut short."""
    changed = [[*proof[:n], bytes([one[0] ^ 1]) + one[1:], *proof[n + 1 :]] for n, one in enumerate(proof)]
    dropped = [[*proof[:n], *proof[n + 1 :]] for n in range(len(proof))]
    doubled = [[*proof[: n + 1], *proof[n:]] for n in range(len(proof))]
    swapped = [[*proof[:n], proof[n + 1], proof[n], *proof[n + 2 :]] for n in range(len(proof) - 1)]
    short = [[*proof[:-1], proof[-1][:31]]] if proof else []
    return [*changed, *dropped, *doubled, *swapped, *short, [*proof, EMPTY_ROOT]]


@given(st.data())
def test_no_mutation_of_an_inclusion_proof_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40), label="size")
    index = data.draw(st.integers(0, size - 1), label="index")
    log = log_of(size)
    leaf, proof, root = leaf_hash(b"%d" % index), log.inclusion(index, size), log.roots[size]
    other = data.draw(st.integers(0, size), label="other index")
    wrong = [(leaf, index, size, mutated, root) for mutated in mutations(proof)]
    wrong += [(leaf, index, size, proof, log.roots[size - 1]), (leaf_hash(b"x"), index, size, proof, root)]
    wrong += [(leaf, -1, size, proof, root), (leaf, size, size, proof, root)]
    if other != index:
        wrong.append((leaf, other, size, proof, root))
    for arguments in wrong:
        with pytest.raises(Refusal) as caught:
            merkle.verify_inclusion(*arguments)
        assert caught.value.reason == "not_in_log"


@given(st.data())
def test_no_mutation_of_a_consistency_proof_holds(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 40), label="new size")
    old = data.draw(st.integers(1, new), label="old size")
    log = log_of(new)
    proof = log.consistency(old, new)
    other = data.draw(st.integers(0, new).filter(lambda size: size != old), label="other root")
    wrong = [(old, log.roots[old], new, log.roots[new], mutated) for mutated in mutations(proof)]
    wrong += [(old, log.roots[other], new, log.roots[new], proof), (old, log.roots[old], new, leaf_hash(b"x"), proof)]
    for arguments in wrong:
        with pytest.raises(Refusal) as caught:
            merkle.verify_consistency(*arguments)
        assert caught.value.reason == "log_forked"


def test_a_shorter_log_was_rolled_back() -> None:
    log = log_of(5)
    with pytest.raises(Refusal) as caught:
        merkle.verify_consistency(5, log.roots[5], 4, log.roots[4], [])
    assert caught.value.reason == "log_rolled_back"


def test_every_log_continues_the_empty_one() -> None:
    log = log_of(3)
    merkle.verify_consistency(0, EMPTY_ROOT, 3, log.roots[3], [])
    for root, proof in ((log.roots[1], []), (EMPTY_ROOT, [EMPTY_ROOT])):
        with pytest.raises(Refusal) as caught:
            merkle.verify_consistency(0, root, 3, log.roots[3], proof)
        assert caught.value.reason == "log_forked"


def test_a_leaf_is_never_taken_for_an_inner_node() -> None:
    """The two prefixes: otherwise the log of two leaves could be shown as one of a single leaf."""
    log = log_of(2)
    joined = leaf_hash(b"0") + leaf_hash(b"1")
    assert leaf_hash(joined) != log.roots[2]
    assert merkle.inner_hash(leaf_hash(b"0"), leaf_hash(b"1")) == log.roots[2]


@pytest.mark.parametrize(
    ("size", "hashes"), [(1, ()), (2, (EMPTY_ROOT, EMPTY_ROOT)), (0, (EMPTY_ROOT,)), (1, (b"short",))]
)
def test_a_frontier_that_is_none_is_refused(size: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="not those of a log"):
        Frontier(size, hashes)


def test_what_is_not_in_a_log_has_no_proof() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        merkle.inclusion_nodes(3, 3)
    for old, new in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="continues"):
            merkle.consistency_nodes(old, new)
