"""A site whose every word is hostile: each text that it can say holds all that drives a terminal, or misleads on it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from oa_base.refusal import Refusal
from oa_client.cpython.sqlite_store import SqliteStore
from oa_client.edge.tests.answers import answered
from oa_client.transport import HttpAnswer
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor
from oa_khala.topics import run_events
from oa_runlog import events as ev
from oa_runlog.canonical import canonical_json
from oa_runlog.proof.audit import audit_start
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.state.reducer import replay
from oa_runlog.tests.records import SIGNER, START_NS
from oa_runlog.wire import encode_body, encode_event, receipt_to_wire
from openagents.control.v1 import audit_service_pb2
from openagents.runtime.v1 import receipt_service_pb2, replay_service_pb2

RUN = "run_01JD8V0000000000000000000A"
OUR_NAME = re.compile("[a-z][a-zA-Z0-9]*")
"""A name that `oa` and the contracts give to a member of JSON."""
BYTES = bytes(range(256))
CONTROLS = "".join(map(chr, (*range(1, 32), *range(127, 160))))
"""All control characters but NUL, which the contract takes nowhere. The other bytes are letters."""
WORD = f"<{CONTROLS}\x1b]0;pwned\a\x1b[2J\u202e\u2066\u200b\u2060\ufeff\u061c\n{RUN} forged>"
LINES = WORD.replace(RUN, "another line")
"""For what may have lines of its own."""
FILE_NAME = b"<\x1b[2J\xff\n\xe2\x80\xae" + bytes(byte for byte in BYTES[1:] if byte != ord("/"))[:200]
CONTROL_URL = "http://127.0.0.1:9"

_SCALARS: Mapping[int, Any] = {
    FieldDescriptor.TYPE_STRING: WORD,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 1.0,
}


def filled(message: Message, depth: int = 5) -> Message:
    """Set every field that can be set, each text to WORD."""
    descriptor: Any = message.DESCRIPTOR
    for field in descriptor.fields:
        _fill(message, field, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update({WORD: WORD})
    elif field.message_type is not None and depth and not field.message_type.full_name.startswith("google."):
        inner = getattr(message, field.name)
        filled(inner.add() if field.is_repeated else inner, depth - 1)
    elif field.message_type is None:
        value = _SCALARS.get(field.type, 1)
        with suppress(ValueError):  # an enum without a 1
            getattr(message, field.name).append(value) if field.is_repeated else setattr(message, field.name, value)


_QUEUE = ev.QueuePolicy(concurrency=ev.Concurrency(WORD[:128], 1), retry=ev.RetryPolicy(3))


def _bodies(*, with_output: bool) -> list[ev.EventBody]:
    output: list[ev.EventBody] = [
        ev.TextDelta(stream, data) for stream in ev.TextStream for data in (BYTES, LINES.encode(), b"\x1b[31mred")
    ]
    return [
        ev.RunCreated(WORD, WORD, ev.RunSpec("exec", ev.ExecSpec((WORD,), WORD), WORD, queue=_QUEUE)),
        ev.RunStarted(WORD, 1, 1),
        *(output if with_output else []),
        ev.ToolCall(WORD, WORD),
        ev.Message(ev.MessageRole.ASSISTANT, LINES),
        ev.ExecutorLost(WORD, 1, 1, True),
        ev.RunStarted(WORD, 2, 2),
        ev.AttemptFailed(WORD, 2, 2, ev.RunFinished(ev.Outcome.FAILED, WORD[:64], WORD), 1),
        ev.RunStarted(WORD, 3, 3),
        ev.RunCancelRequested(WORD, WORD),
        ev.RunFinished(ev.Outcome.FAILED, WORD[:64], WORD, ev.ExecResult(1)),
    ]


class HostileRun:
    """A run of which everything is hostile, and its receipt. `with_output`: it has written something, too."""

    def __init__(self, *, with_output: bool) -> None:
        bodies = _bodies(with_output=with_output)
        self.events = [
            encode_event(RUN, seq, START_NS + seq, epoch, encode_body(body))
            for seq, (body, epoch) in enumerate(zip(bodies, lease_epochs(bodies), strict=True), start=1)
        ]
        state = replay(self.events)
        assert state is not None
        self.receipt: SignedReceipt = SIGNER.sign(state, WORD)
        self.artifact = b"".join(artifact_lines(self.receipt, self.events))


def lease_epochs(bodies: Iterable[ev.EventBody]) -> Iterator[int]:
    """The lease epoch of each event: 0 for the authority's own, else that of the last start."""
    held = 0
    for body in bodies:
        if isinstance(body, ev.RunStarted):
            held = body.lease_epoch
        authority = (ev.RunCreated, ev.RunCancelRequested, ev.ExecutorLost, ev.AttemptFailed, ev.RunStarted)
        yield 0 if isinstance(body, authority) else held


class HostileHttp:
    """Answers every method; what is proved is well signed. `refusing`: refuses every call instead."""

    def __init__(self, run: HostileRun, *, refusing: bool) -> None:
        self._run = run
        self._refusing = refusing

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        if self._refusing:
            raise Refusal("not_found", WORD, field=WORD, metadata={WORD: WORD})
        service, method = url.rsplit("/", 2)[1:]
        found: Any = Default().FindServiceByName(service)
        answer = filled(GetMessageClass(found.methods_by_name[method].output_type)())
        self._make_true(answer)
        return answered(answer)

    def _make_true(self, answer: Message) -> None:
        """What is checked must hold, or nothing is shown."""
        run: Any = getattr(answer, "run", None)
        if run is not None:
            run.run_id = RUN
        if isinstance(answer, receipt_service_pb2.GetReceiptResponse):
            answer.receipt.CopyFrom(receipt_to_wire(self._run.receipt))
        elif isinstance(answer, receipt_service_pb2.ListReceiptKeysResponse):
            answer.keys[0].key_id, answer.keys[0].public_key = SIGNER.key_id, SIGNER.public_key
        elif isinstance(answer, audit_service_pb2.ReadAuditLogResponse):
            _make_chain(answer)
        elif isinstance(answer, replay_service_pb2.ReadReplayArtifactResponse):
            artifact = self._run.artifact
            answer.data, answer.total_bytes = artifact, len(artifact)
            answer.sha256 = hashlib.sha256(artifact).digest()


def _make_chain(answer: audit_service_pb2.ReadAuditLogResponse) -> None:
    """The chain of an org with one event."""
    start = audit_start(WORD)
    texts = ("org_id", "time", "action", "reason", "actor", "target", "network", "request_id")
    event = canonical_json({"sequence": 1, **dict.fromkeys(texts, WORD)})
    head = start.after(event)
    answer.start.sequence, answer.start.chain = start.sequence, start.chain
    answer.events[0].canonical_json, answer.events[0].chain = event, head.chain
    answer.head.sequence, answer.head.chain = head.sequence, head.chain


def keep(path: Path, namespace: str, run: HostileRun) -> None:
    """Store the run as one that was followed before."""
    store = SqliteStore(path, namespace)
    topic = run_events(RUN)
    store.apply([Apply(topic, Cursor(WORD, seq), data, 1) for seq, data in enumerate(run.events, start=1)])
    store.close()


def key() -> str:
    """The key that receipts are signed with, as `--key` takes it."""
    return base64.b64encode(SIGNER.public_key).decode()


class Screen(io.TextIOWrapper):
    """A terminal, or a pipe; `written` is what reached it."""

    def __init__(self, *, terminal: bool) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, "utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def written(self) -> bytes:
        return self._bytes.getvalue()


def screens(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, stdin: bytes = b"") -> tuple[Screen, Screen]:
    """Put them in the place of stdout and stderr."""
    out, err = Screen(terminal=terminal), Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
    return out, err
