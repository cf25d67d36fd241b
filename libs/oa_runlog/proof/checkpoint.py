"""Checkpoints: signed statements of the size of the log of receipts and of its contents.

The text is a C2SP tlog-checkpoint, the envelope a C2SP signed note with Ed25519 signatures (c2sp.org/tlog-checkpoint,
c2sp.org/signed-note), so that tools and witnesses of other transparency logs can read them:

    openagents.dev/receipts/log_8a…                   origin: the log's name, and the name of its keys
    42                                                leaves
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      root of the Merkle tree over them

    — openagents.dev/receipts/log_8a… Az3grlgtzPIC…   key id (4 bytes) and signature (64), over the text above

A leaf of the log is a receipt's canonical JSON. Anyone who keeps a checkpoint can show later that a receipt was
removed: the log then can't prove that it continues the kept checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_runlog.proof.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from oa_runlog.proof.notes import (
    VerifierKey,
    base64_text,
    is_line,
    is_name,
    malformed,
    open_note,
    split_note,
    strict_base64,
)
from oa_runlog.proof.receipt import SignedReceipt

MAX_LOG_SIZE = 2**63 - 1
"""Maximum number of leaves."""
ORIGIN = "openagents.dev/receipts/"
"""Prefix of the name of a log of receipts."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size of a log, and the root over its leaves. `extensions` are further lines, which we don't interpret."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(map(is_line, lines)):
            raise ValueError("the origin and the extensions are lines that are not empty")
        if not 0 <= self.size <= MAX_LOG_SIZE or len(self.root) != HASH_BYTES:
            raise ValueError("a log has a size, and a root of 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ValueError("an empty log has the empty root")

    @property
    def text(self) -> str:
        """The text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), base64_text(self.root), *self.extensions))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises Refusal(checkpoint_malformed)."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not _SIZE.fullmatch(lines[1]):
        raise malformed("its text is not origin, size and root, a line each")
    root = strict_base64(lines[2])
    try:
        return Checkpoint(lines[0], int(lines[1]), root or b"", tuple(lines[3:]))
    except ValueError as error:
        raise malformed(str(error)) from None


def verify_checkpoint(note: bytes, *log_keys: VerifierKey) -> Checkpoint:
    """The checkpoint in a note that one of the log's pinned keys has signed; cosignatures of others are ignored.

    Raises Refusal: `checkpoint_malformed`, `signature_invalid`, `unknown_key`.
    """
    text, signed_by = open_note(note, log_keys)
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin != signed_by[0].name:
        raise malformed("its origin is not the name of the log's key")
    return checkpoint


def log_origin(receipt_log: str) -> str:
    """The origin of an installation's log of receipts. Its name stays when the log of events gets a new epoch."""
    return ORIGIN + receipt_log


def verify_receipt_log(note: bytes, keys: Iterable[bytes]) -> Checkpoint:
    """The checkpoint in a note of the log of receipts, signed with one of `keys` (32 bytes each), as receipts are.

    The note itself names the log; `check_growth` checks that it is the log that was seen before.
    Raises Refusal: `checkpoint_malformed`, `signature_invalid`, `unknown_key`.
    """
    text, _ = split_note(note)
    origin = text.partition("\n")[0]
    if not origin.startswith(ORIGIN) or not is_name(origin):
        raise malformed(f"its origin does not begin with {ORIGIN}")
    return verify_checkpoint(note, *[VerifierKey(origin, key) for key in keys])


def check_growth(seen: Checkpoint, now: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that the log only grew from checkpoint `seen` to checkpoint `now`; both must have been verified.

    Raises Refusal: `log_rolled_back` when the log is shorter, `log_forked` when earlier leaves were changed, or when it
    is another log.
    """
    if seen.origin != now.origin:
        raise Refusal("log_forked", f"{now.origin} is another log than {seen.origin}")
    verify_consistency(seen.size, seen.root, now.size, now.root, proof)


def receipt_leaf(receipt: SignedReceipt) -> bytes:
    """The hash of a receipt's leaf in the log: over the signed JSON, which names the key that signed it."""
    return leaf_hash(receipt.canonical_json)


def verify_logged(receipt: SignedReceipt, index: int, proof: Sequence[bytes], checkpoint: Checkpoint) -> None:
    """Check that a receipt is leaf `index` of the log. Raises Refusal(not_in_log)."""
    verify_inclusion(receipt_leaf(receipt), index, checkpoint.size, proof, checkpoint.root)
