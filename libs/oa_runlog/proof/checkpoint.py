"""Checkpoints: the signed statement of how long the log of receipts is and what is in it.

The text is a C2SP tlog-checkpoint, the envelope a C2SP signed note with Ed25519 signatures (c2sp.org/tlog-checkpoint,
c2sp.org/signed-note), so that tools and witnesses of other transparency logs read them:

    openagents.dev/receipts/log_8a…                   origin: the log's name, and the name of its keys
    42                                                leaves
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      root of the Merkle tree over them

    — openagents.dev/receipts/log_8a… Az3grlgtzPIC…   key id (4 bytes) and signature (64), over the text above

A leaf of the log is a receipt's canonical JSON. Whoever keeps a checkpoint can show later that a receipt was taken
away: the log then can't prove that it continues the kept one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from oa_errors import Refusal
from oa_errors.strict_text import read_base64
from oa_runlog.proof.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from oa_runlog.proof.receipt import SignedReceipt

MAX_NOTE_BYTES = 64 * 1024
"""Longest note that is read: a checkpoint with more cosignatures than there are witnesses."""
MAX_SIGNATURES = 100
"""Most signatures of a note that are read."""
MAX_LOG_SIZE = 2**63 - 1
ORIGIN = "openagents.dev/receipts/"
"""What the name of a log of receipts begins with."""

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_PUBLIC_KEY_BYTES = 32
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_TEXT = re.compile(r"(?P<name>[^\s+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>\S+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIGNATURE_PREFIX = "\N{EM DASH} "


# ------------------------------------------------------------------------------------------------- signed notes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key (32 bytes). Its text form is what people pin: "name+id+key"."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise ValueError("a key has a name without spaces and plus signs, and 32 bytes")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes in front of each signature: they tell keys of one name apart, and prove nothing."""
        text = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(text).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as people pin it."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key in its text form. Raises ValueError when it is none, or of another algorithm than Ed25519."""
        match = _KEY_TEXT.fullmatch(text)
        data = _strict_base64(match["key"]) if match else None
        if match is None or data is None or data[:1] != _ED25519:
            raise ValueError("not an Ed25519 verifier key of the form name+id+key")
        key = cls(match["name"], data[1:])
        if key.key_id.hex() != match["id"]:
            raise ValueError("the id is not that of the name and the key")
        return key


class NoteSigner:
    """Signs notes under a name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier_key = VerifierKey(name, key.public_key().public_bytes_raw())
        """What others verify with."""

    def signature_line(self, text: str) -> str:
        """The line that goes below a text; the same text gives the same line."""
        signature = self._key.sign(text.encode())
        return f"{_SIGNATURE_PREFIX}{self.verifier_key.name} {_base64(self.verifier_key.key_id + signature)}\n"


def sign_note(text: str, signers: Iterable[NoteSigner]) -> bytes:
    """The note with this text. Raises ValueError for a text that is empty, has control characters or no end of line."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError("the text of a note consists of whole lines without control characters")
    lines = "".join(signer.signature_line(text) for signer in signers)
    if not lines:
        raise ValueError("a note has at least one signature")
    return f"{text}\n{lines}".encode()


def join_notes(notes: Sequence[bytes]) -> bytes:
    """One note with all signatures of several notes, at least one, of the same text. Raises ValueError for others."""
    text = notes[0].rpartition(b"\n\n")[0]
    parts = [note.rpartition(b"\n\n") for note in notes]
    if not text or any(part[0] != text for part in parts):
        raise ValueError("the notes do not have the same text")
    return text + b"\n\n" + b"".join(part[2] for part in parts)


def open_note(note: bytes, known: Iterable[VerifierKey]) -> tuple[str, tuple[VerifierKey, ...]]:
    """The text of a note and the known keys that signed it, at least one. Signatures of unknown keys are ignored.

    Raises Refusal: `checkpoint_malformed`; `signature_invalid` when a known key's signature does not fit;
    `unknown_key` when no known key signed.
    """
    text, signatures = _split_note(note)
    keys = {(key.name, key.key_id): key for key in known}
    signed_by: list[VerifierKey] = []
    for name, key_id, signature in signatures:
        key = keys.get((name, key_id))
        if key is None or key in signed_by:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            raise Refusal("signature_invalid", f"the signature of {name} does not fit the note") from None
        signed_by.append(key)
    if not signed_by:
        raise Refusal("unknown_key", "no pinned key signed this note")
    return text, tuple(signed_by)


def _split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and (name, key id, signature) of each line below it."""
    if len(note) > MAX_NOTE_BYTES:
        raise _malformed(f"it has more than {MAX_NOTE_BYTES} bytes")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    text, blank, below = whole.rpartition("\n\n")
    if not blank or not below.endswith("\n") or _CONTROL.search(whole):
        raise _malformed("it does not end with signatures below a blank line")
    lines = below[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise _malformed(f"it has more than {MAX_SIGNATURES} signatures")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    data = _strict_base64(encoded)
    is_line = line.startswith(_SIGNATURE_PREFIX) and _NAME.fullmatch(name)
    if not is_line or data is None or len(data) <= _KEY_ID_BYTES:
        raise _malformed("a line below the blank one is no signature")
    return name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:]


# ------------------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How long a log is, and the root over its leaves. `extensions` are further lines, which mean nothing to us."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(lines) or any("\n" in line or _CONTROL.search(line) for line in lines):
            raise ValueError("the origin and the extensions are lines that are not empty")
        if not 0 <= self.size <= MAX_LOG_SIZE or len(self.root) != HASH_BYTES:
            raise ValueError("a log has a size, and a root of 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ValueError("an empty log has the empty root")

    @property
    def text(self) -> str:
        """The text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), _base64(self.root), *self.extensions))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises Refusal(checkpoint_malformed)."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not _SIZE.fullmatch(lines[1]):
        raise _malformed("its text is not origin, size and root, a line each")
    root = _strict_base64(lines[2])
    try:
        return Checkpoint(lines[0], int(lines[1]), root or b"", tuple(lines[3:]))
    except ValueError as error:
        raise _malformed(str(error)) from None


def sign_checkpoint(size: int, root: bytes, signer: NoteSigner) -> bytes:
    """The signed checkpoint of a log; its origin is the signer's name. The same log gives the same bytes."""
    return sign_note(Checkpoint(signer.verifier_key.name, size, root).text, [signer])


def verify_checkpoint(note: bytes, *log_keys: VerifierKey) -> Checkpoint:
    """The checkpoint in a note, once one of the log's pinned keys has signed it; cosignatures of others are ignored.

    Raises Refusal: `checkpoint_malformed`, `signature_invalid`, `unknown_key`.
    """
    text, signed_by = open_note(note, log_keys)
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin != signed_by[0].name:
        raise _malformed("its origin is not the name of the log's key")
    return checkpoint


def log_origin(receipt_log: str) -> str:
    """The origin of an installation's log of receipts, whose name stays when the log of events gets a new epoch."""
    return ORIGIN + receipt_log


def verify_receipt_log(note: bytes, keys: Iterable[bytes]) -> Checkpoint:
    """The checkpoint in a note of the log of receipts that these keys (32 bytes each) sign, as they sign the receipts.

    Which log that is, the note says itself; that it is the one of before, `check_growth` finds out.
    Raises Refusal: `checkpoint_malformed`, `signature_invalid`, `unknown_key`.
    """
    text, _ = _split_note(note)
    origin = text.partition("\n")[0]
    if not origin.startswith(ORIGIN) or not _NAME.fullmatch(origin):
        raise _malformed(f"its origin does not begin with {ORIGIN}")
    return verify_checkpoint(note, *[VerifierKey(origin, key) for key in keys])


def check_growth(seen: Checkpoint, now: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that the log, since it was `seen`, only grew to what it is `now`; both checkpoints have been verified.

    Raises Refusal: `log_rolled_back` when it is shorter, `log_forked` when what was there was changed, or when it is
    another log.
    """
    if seen.origin != now.origin:
        raise Refusal("log_forked", f"{now.origin} is another log than {seen.origin}")
    verify_consistency(seen.size, seen.root, now.size, now.root, proof)


def receipt_leaf(receipt: SignedReceipt) -> bytes:
    """The hash of a receipt's leaf in the log: over what was signed, which names the key that signed it."""
    return leaf_hash(receipt.canonical_json)


def verify_logged(receipt: SignedReceipt, index: int, proof: Sequence[bytes], checkpoint: Checkpoint) -> None:
    """Check that a receipt is leaf `index` of the log. Raises Refusal(not_in_log)."""
    verify_inclusion(receipt_leaf(receipt), index, checkpoint.size, proof, checkpoint.root)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _strict_base64(text: str) -> bytes | None:
    """The bytes, None unless `text` is their one canonical form."""
    try:
        return read_base64(text)
    except ValueError:
        return None


def _malformed(text: str) -> Refusal:
    return Refusal("checkpoint_malformed", f"This is no checkpoint: {text}.")
