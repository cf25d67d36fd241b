"""Finished runs as the authority stores them, for what is proved about records."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from oa_runlog import events as ev
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.signing import ReceiptSigner
from oa_runlog.state.reducer import replay
from oa_runlog.tests import values
from oa_runlog.wire import encode_body, encode_event

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = ReceiptSigner(KEY)
MALLORY = ReceiptSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEYS = {SIGNER.key_id: SIGNER.public_key}
START_NS = 1_795_366_653_123_456_000


@dataclass(frozen=True)
class Record:
    """A finished run: its stored events and its receipt."""

    run_id: str
    events: list[bytes]
    receipt: SignedReceipt


def stored(bodies: list[ev.EventBody], run_id: str = values.RUN_ID, leases: list[int] | None = None) -> list[bytes]:
    """A run's events as they are stored: the first two by the authority, the others under the first lease, unless
    `leases` says otherwise."""
    epochs = leases if leases is not None else [0, 0, *[1] * (len(bodies) - 2)]
    return [
        encode_event(run_id, seq, START_NS + seq * 1_000_003, epoch, encode_body(body))
        for seq, (body, epoch) in enumerate(zip(bodies, epochs, strict=True), start=1)
    ]


def record(work: list[ev.EventBody], run_id: str = values.RUN_ID, signer: ReceiptSigner = SIGNER) -> Record:
    """A run that did `work` and succeeded."""
    bodies: list[ev.EventBody] = [
        ev.RunCreated(values.USER_ID, values.ORG_ID, ev.RunSpec("exec", ev.ExecSpec(("ls",)))),
        ev.RunStarted(values.WORKER_ID, 1, 1),
        *work,
        ev.RunFinished(ev.Outcome.SUCCEEDED, exec=ev.ExecResult(exit_code=0)),
    ]
    events = stored(bodies, run_id)
    state = replay(events)
    assert state is not None
    return Record(run_id, events, signer.sign(state, "log_1"))


def text(data: bytes) -> ev.TextDelta:
    """A piece of output."""
    return ev.TextDelta(ev.TextStream.STDOUT, data)


records = st.lists(values.work_bodies, max_size=6).map(record)
