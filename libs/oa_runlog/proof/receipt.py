"""Receipts: signed statements about runs. Members: docs/protocol/receipts.md.

`signing` signs receipts, `verify` checks them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oa_base.clock import SECOND_NS
from oa_runlog.canonical import Canonical, canonical_json
from oa_runlog.events import Outcome
from oa_runlog.state import TOTAL_NAMES, RunState, Totals
from oa_wire.strict.text import read_json

VERSION = 1
"""Version of the members."""

_KEY_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt as it is stored and given out: `signature` is Ed25519 over exactly `canonical_json`."""

    run_id: str
    canonical_json: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """The facts that a receipt states. Times are RFC 3339 in UTC with nine digits; `chain_head` is hexadecimal."""

    run_id: str
    org_id: str
    user_id: str
    first_seq: int
    last_seq: int
    count: int
    chain_head: str
    outcome: Outcome
    finish_reason: str
    attempts: int
    create_time: str
    finish_time: str
    totals: Totals
    log_epoch: str
    kid: str

    def members(self) -> dict[str, Canonical]:
        """The members of the canonical JSON."""
        values: dict[str, Canonical] = {name: getattr(self, name) for name in _SCALARS}
        return values | {
            "version": VERSION,
            "outcome": str(self.outcome),
            "totals": {name: getattr(self.totals, name) for name in TOTAL_NAMES},
        }


_TEXTS = (
    "run_id", "org_id", "user_id", "chain_head", "finish_reason", "create_time", "finish_time", "log_epoch", "kid"
)  # fmt: skip
_COUNTS = ("first_seq", "last_seq", "count", "attempts")
_SCALARS = (*_TEXTS, *_COUNTS)
_MEMBERS = {*_SCALARS, "version", "outcome", "totals"}


def facts_of(state: RunState, log_epoch: str, kid: str) -> ReceiptFacts:
    """The facts that the receipt of a finished run states. Raises ValueError for a run that has not finished."""
    if state.finish is None or state.finish_ns is None:
        raise ValueError("a run that has not finished has no receipt")
    return ReceiptFacts(
        run_id=state.run_id,
        org_id=state.org_id,
        user_id=state.user_id,
        first_seq=1,
        last_seq=state.latest_seq,
        count=state.latest_seq,
        chain_head=state.chain_head.hex(),
        outcome=state.finish.outcome,
        finish_reason=state.finish.reason,
        attempts=state.attempt,
        create_time=rfc3339(state.create_ns),
        finish_time=rfc3339(state.finish_ns),
        totals=state.totals,
        log_epoch=log_epoch,
        kid=kid,
    )


def rfc3339(ns: int) -> str:
    """A time as text: "2026-11-22T16:57:33.123456000Z"."""
    seconds, nanos = divmod(ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def read_facts(data: bytes) -> ReceiptFacts:
    """The facts in a receipt's JSON. Raises ValueError when it is not of version 1, or not in canonical form."""
    members: Any = read_json(data)
    if not isinstance(members, dict) or set(members) != _MEMBERS or members["version"] != VERSION:
        raise ValueError("the members are not those of a receipt of version 1")
    totals = members["totals"]
    if not isinstance(totals, dict) or set(totals) != set(TOTAL_NAMES):
        raise ValueError("the totals are not those of a receipt of version 1")
    if not all(type(members[name]) is str for name in _TEXTS):
        raise ValueError("a text member is not text")
    if not all(type(number) is int for number in [*totals.values(), *(members[name] for name in _COUNTS)]):
        raise ValueError("a count is not an integer")
    facts = ReceiptFacts(
        outcome=Outcome(members["outcome"]), totals=Totals(**totals), **{name: members[name] for name in _SCALARS}
    )
    if canonical_json(facts.members()) != data:
        raise ValueError("the JSON is not in canonical form")
    return facts


def key_id_of(public_key: bytes) -> str:
    """Id of a key: base64url, without padding, of the first 12 bytes of the SHA-256 of its 32 bytes."""
    return base64.urlsafe_b64encode(hashlib.sha256(public_key).digest()[:_KEY_ID_BYTES]).decode()
