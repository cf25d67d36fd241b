"""The hash chain over an org's audit log, and the file to which the log is exported.

chain_0 = SHA-256("openagents.audit.v1:" ‖ org id); chain_n = SHA-256(chain_{n-1} ‖ canonical form of event n). Events
without an org have a chain of their own, under the empty id. Nobody signs a chain: it proves something only to those
who keep a head.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from oa_base.refusal import Refusal
from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.proof.chain import chain_next
from oa_runlog.proof.sequence import in_sequence
from oa_wire.strict.text import read_json

MAX_LINE_BYTES = 64 << 10
"""Maximum size of a line of a file."""
_DOMAIN = b"openagents.audit.v1:"
_KIND = "audit_log"
_FIRST = {"kind", "org_id", "sequence", "chain"}
_TEXTS = ("org_id", "time", "action", "reason", "actor", "target", "network", "request_id")
"""What every event states beside its number. A later release may add members."""
_HEAD = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})")
_CHAIN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The value of a chain after `sequence` events. Its text is `SEQUENCE:CHAIN`, the chain in hexadecimal digits."""

    sequence: int
    chain: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.chain.hex()}"

    def after(self, event: bytes) -> AuditHead:
        """The head after one more event, in its canonical form."""
        return AuditHead(self.sequence + 1, chain_next(self.chain, event))


@dataclass(frozen=True, slots=True)
class VerifiedAuditLog:
    """A log whose chain is intact. `start` is the head after the events that were dropped because of their age.
    `known_compared`: whether the head that the caller knew was compared; a head from before `start` can't be."""

    org_id: str
    start: AuditHead
    head: AuditHead
    known_compared: bool
    first_time: str = ""
    """When the first of the events happened, by its own statement; empty for none. A log that begins late although this
    time is recent was not shortened because of its age."""

    @property
    def count(self) -> int:
        """The number of events."""
        return self.head.sequence - self.start.sequence


def audit_start(org_id: str) -> AuditHead:
    """The head of an org's chain before its first event."""
    return AuditHead(0, hashlib.sha256(_DOMAIN + org_id.encode()).digest())


def read_audit_head(text: str) -> AuditHead:
    """The head in its text form. Raises ValueError."""
    found = _HEAD.fullmatch(text)
    if found is None:
        raise ValueError("no head of an audit log")
    return AuditHead(int(found[1]), bytes.fromhex(found[2]))


def audit_first_line(org_id: str, start: AuditHead) -> bytes:
    """The first line of a file: the head that its events continue."""
    members: dict[str, Canonical] = {
        "kind": _KIND,
        "org_id": org_id,
        "sequence": start.sequence,
        "chain": start.chain.hex(),
    }
    return canonical_json(members) + b"\n"


def audit_event_line(event: bytes, chain: bytes) -> bytes:
    """The line of an event: its canonical form, with the chain after it. Raises Refusal `artifact_malformed`."""
    members = _object(event)
    if "chain" in members:
        raise _malformed("an event of the log states its own chain")
    return canonical_json({**members, "chain": chain.hex()}) + b"\n"


def verify_audit_log(
    lines: Iterable[bytes], *, org_id: str | None = None, known: AuditHead | None = None
) -> VerifiedAuditLog:
    """Check a file's lines: their order, the chain, that they are `org_id`'s (if given) and continue the `known` head.

    Raises Refusal: `artifact_malformed`; for the order `event_missing`, `event_doubled`, `event_misplaced`,
    `sequence_broken`; `tail_cut` for a line that ends early; `chain_mismatch`; `log_rolled_back` when the log is
    shorter than at the known head, `log_forked` when it does not continue that head.
    """
    rest = iter(lines)
    owner, start = _first(next(rest, b""))
    if org_id is not None and owner != org_id:
        raise Refusal("chain_mismatch", "this is the audit log of another org; verify the one that you asked for")
    _check_start(owner, start)
    head, compared, first_time = start, _compared(start, known), ""
    for members in in_sequence(_events(rest), _sequence, first=start.sequence + 1):
        head = _checked(members, owner, head)
        compared = _compared(head, known) or compared
        first_time = first_time or members["time"]
    if known is not None and head.sequence < known.sequence:
        message = f"the log ends after event {head.sequence}; event {known.sequence} was seen before: it was cut"
        raise Refusal("log_rolled_back", message)
    return VerifiedAuditLog(owner, start, head, compared, first_time)


def _check_start(org_id: str, start: AuditHead) -> None:
    if start.sequence == 0 and start != audit_start(org_id):
        raise Refusal("chain_mismatch", "the chain does not begin as that of its org does")


def _compared(head: AuditHead, known: AuditHead | None) -> bool:
    if known is None or known.sequence != head.sequence:
        return False
    if known.chain != head.chain:
        raise Refusal(
            "log_forked", f"up to event {head.sequence} the log is not what was seen before: it was rewritten"
        )
    return True


def _checked(members: dict[str, Any], org_id: str, head: AuditHead) -> AuditHead:
    """The head after one more line."""
    number = head.sequence + 1
    if members.get("org_id") != org_id:
        raise _mismatch(number, f"event {number} belongs to another org")
    stated = members.pop("chain")
    following = head.after(canonical_json(members))
    if following.chain.hex() != stated:
        raise _mismatch(number, f"event {number} does not give the chain that its line states: something was changed")
    return following


def _first(line: bytes) -> tuple[str, AuditHead]:
    members = _line(line)
    if set(members) != _FIRST or members["kind"] != _KIND or not isinstance(members["org_id"], str):
        raise _malformed("its first line does not say where the log begins")
    return members["org_id"], AuditHead(_sequence(members), bytes.fromhex(_chain(members)))


def _events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        members = _line(line)
        _chain(members)
        if not all(isinstance(members.get(name), str) for name in _TEXTS):
            raise _malformed("an event lacks a member that every event has")
        yield members


def _line(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _malformed(f"it has a line of more than {MAX_LINE_BYTES} bytes")
    if not line.endswith(b"\n"):
        raise Refusal("tail_cut", "the audit log ends within a line; export it again")
    return _object(line[:-1])


def _object(text: bytes) -> dict[str, Any]:
    try:
        members = read_json(text)
        if isinstance(members, dict) and canonical_json(members) == text:
            return members
    except ValueError:
        pass
    raise _malformed("it has a line that is no JSON object in canonical form")


def _sequence(members: dict[str, Any]) -> int:
    number = members.get("sequence")
    if type(number) is not int or number < 0:
        raise _malformed("an event has no number")
    return number


def _chain(members: dict[str, Any]) -> str:
    chain = members.get("chain")
    if not isinstance(chain, str) or not _CHAIN.fullmatch(chain):
        raise _malformed("a line states no chain")
    return chain


def _mismatch(number: int, message: str) -> Refusal:
    return Refusal("chain_mismatch", message, metadata={"seq": str(number)})


def _malformed(what: str) -> Refusal:
    return Refusal(
        "artifact_malformed", f"this is no audit log as `oa audit export` writes it: {what}; export it again"
    )
