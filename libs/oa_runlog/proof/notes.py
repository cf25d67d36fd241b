"""Signed notes (c2sp.org/signed-note): a text of whole lines, a blank line, and signatures below it.

    — openagents.dev/receipts/log_8a… Az3grlgtzPIC…   name of the key; key id (4 bytes) and signature (64) in base64

This module has the whole format; `signing` has the keys that sign.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_runlog.proof.ed25519 import signature_fits
from oa_wire.strict.text import read_base64

MAX_NOTE_BYTES = 64 * 1024
"""Maximum length of a note: a checkpoint with more cosignatures than there are witnesses."""
MAX_SIGNATURES = 100
"""Maximum number of signatures of a note."""

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_PUBLIC_KEY_BYTES = 32
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_KEY_TEXT = re.compile(r"(?P<name>[^\s+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>\S+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIGNATURE_PREFIX = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key (32 bytes). People pin its text form: "name+id+key"."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not is_name(self.name) or len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise ValueError("a key has a name without spaces and plus signs, and 32 bytes")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes before each signature: they distinguish keys of the same name, and prove nothing."""
        text = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(text).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as people pin it."""
        return f"{self.name}+{self.key_id.hex()}+{base64_text(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key in a text form. Raises ValueError when the text is not a key, or its algorithm is not Ed25519."""
        match = _KEY_TEXT.fullmatch(text)
        data = strict_base64(match["key"]) if match else None
        if match is None or data is None or data[:1] != _ED25519:
            raise ValueError("not an Ed25519 verifier key of the form name+id+key")
        key = cls(match["name"], data[1:])
        if key.key_id.hex() != match["id"]:
            raise ValueError("the id is not that of the name and the key")
        return key


def signature_line(key: VerifierKey, signature: bytes) -> str:
    """The line that goes below a text that the owner of `key` has signed."""
    return f"{_SIGNATURE_PREFIX}{key.name} {base64_text(key.key_id + signature)}\n"


def write_note(text: str, lines: Iterable[str]) -> bytes:
    """The note with this text and these signature lines, at least one. The text is checked before any line is consumed.

    Raises ValueError for a text that is empty, has control characters or does not end with a line end.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError("the text of a note consists of whole lines without control characters")
    signatures = "".join(lines)
    if not signatures:
        raise ValueError("a note has at least one signature")
    return f"{text}\n{signatures}".encode()


def join_notes(notes: Sequence[bytes]) -> bytes:
    """One note with the signatures of `notes`, at least one. Raises ValueError unless all have the same text."""
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
    text, signatures = split_note(note)
    keys = {(key.name, key.key_id): key for key in known}
    signed_by: list[VerifierKey] = []
    for name, key_id, signature in signatures:
        key = keys.get((name, key_id))
        if key is None or key in signed_by:
            continue
        if not signature_fits(key.public_key, signature, text.encode()):
            raise Refusal("signature_invalid", f"the signature of {name} does not fit the note")
        signed_by.append(key)
    if not signed_by:
        raise Refusal("unknown_key", "no pinned key signed this note")
    return text, tuple(signed_by)


def split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and (name, key id, signature) of each line below it. Raises Refusal `checkpoint_malformed`."""
    if len(note) > MAX_NOTE_BYTES:
        raise malformed(f"it has more than {MAX_NOTE_BYTES} bytes")
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise malformed("it is not UTF-8") from None
    text, blank, below = whole.rpartition("\n\n")
    if not blank or not below.endswith("\n") or _CONTROL.search(whole):
        raise malformed("it does not end with signatures below a blank line")
    lines = below[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise malformed(f"it has more than {MAX_SIGNATURES} signatures")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    data = strict_base64(encoded)
    is_line = line.startswith(_SIGNATURE_PREFIX) and is_name(name)
    if not is_line or data is None or len(data) <= _KEY_ID_BYTES:
        raise malformed("a line below the blank one is no signature")
    return name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:]


def is_name(text: str) -> bool:
    """Whether a key may have this name: it has no spaces, plus signs or control characters, and is not empty."""
    return bool(_NAME.fullmatch(text))


def is_line(text: str) -> bool:
    """Whether this may be a line of a note's text: it is not empty, and has no control characters or end of line."""
    return bool(text) and "\n" not in text and not _CONTROL.search(text)


def base64_text(data: bytes) -> str:
    """Standard base64, with padding."""
    return base64.b64encode(data).decode()


def strict_base64(text: str) -> bytes | None:
    """The decoded bytes; None unless `text` is their canonical form."""
    try:
        return read_base64(text)
    except ValueError:
        return None


def malformed(text: str) -> Refusal:
    """The refusal of a note or checkpoint; `text` says what is wrong with "it"."""
    return Refusal("checkpoint_malformed", f"this is no checkpoint: {text}")
