"""Golden values: the form of what is stored, signed or pinned, and compared by later releases, can't change unnoticed.

A value here is never edited. If one of these tests fails, a retry that a worker sends across the upgrade would be
refused as `idempotency_conflict`, or a pinned key would no longer be found.
"""

from __future__ import annotations

import hashlib

import pytest

from oa_runlog import events as ev
from oa_runlog.authority.commands import Append, CreateRun, EncodedBody, TellChild
from oa_runlog.fingerprint import fingerprint
from oa_runlog.proof.notes import VerifierKey
from oa_runlog.proof.receipt import key_id_of
from oa_runlog.tests.values import ORG_ID, OTHER_RUN_ID, RUN_ID, USER_ID, WORKER_ID
from openagents.runtime.v1 import event_pb2

SPEC = ev.RunSpec(
    "exec",
    ev.ExecSpec(("git", "log"), "/work", {"b": "2", "a": "1", "ä": ""}, 5000),
    "a title",
    "thread",
    {"z": "26", "team": "runtime", "a": "1"},
    "short",
)
JSON: ev.JsonObject = {"z": None, "a": [1.5, True, "x", {}], "m": {"k": -1.0, "b": [[]]}}
BODIES: dict[str, ev.EventBody] = {
    "text.delta": ev.TextDelta(ev.TextStream.STDERR, b"a\xff"),
    "tool.call": ev.ToolCall("c1", "grep", JSON),
    "tool.result": ev.ToolResult("c1", True, JSON, True),
    "message": ev.Message(ev.MessageRole.ASSISTANT, "héllo"),
    "verification": ev.Verification("tests", True, "42 passed"),
    "usage": ev.Usage("m", 1, 2**40, 3),
    "codex.event": ev.CodexEvent(ev.CodexItem("reasoning", "t1", "i1", JSON), "th"),
    "custom": ev.Custom("acme.progress", JSON),
    "run.finished": ev.RunFinished(ev.Outcome.FAILED, "timeout", "late", ev.ExecResult(None, 9, 5000, 1, 2)),
}

GOLDEN = {
    "parts": "3fafa1cf2f19a7c1129beb20cf0983f73a489a221fc0dd2f16d1be292d089205",
    "create": "9c740e856883ce82b1321594c72f75a859fa6206d5ea02a2478de104b98c3b2d",
    "text.delta": "8bd2c757bdabf203e79f00bac8bdb26ca34c47db74530dbfc2d95299e7f3ce99",
    "tool.call": "b76348f5a1ad84efb6cc2f218058b3ae797edf33e541e9ac155ca0e5de83a811",
    "tool.result": "90e983d9e09ff972e0bc995812f8b817c16c487303be52a67721068a6a0f523b",
    "message": "c0a3376dbbdc50a1cd389e61cab51f368eea7a0625185ad386057b3216e2616f",
    "verification": "73cd610f5939a1341b21ae21eea4eb9be070da52bf5770f2732d59e0836c41e6",
    "usage": "a0c87eda0643331e58616bf7fccfa5f5140271afb2131f8719aa650a7fc5da32",
    "codex.event": "850b3dc1c3b4d4140d036bf5e3f405898c5f0f8768dab36dd21418dc94a42201",
    "custom": "3382b58c69728e42e55cfde901d8d1f28c5afe7dee787c76f6b0ec7af71b470d",
    "run.finished": "b88b3c21745601dc56697980839fb538aad62532c8a7f9046dfe55089ef7c781",
    "append": "aab95596d25e1f0ef298bed19ca4a6cdcdc6b6da3c2d741736c6f217716cd801",
    "child": "033a733c05bb3e24c8e5e75f87d2789504ca3e7247bbd8d86111d3c6796ffef7",
    "receipt key": "Yw3NKWbEM2aRElRI",
    "log key": "148cdfaa",
}


def append(*bodies: ev.EventBody) -> Append:
    return Append.of(RUN_ID, ORG_ID, WORKER_ID, 7, "any-key", bodies, expected_seq=3)


def test_the_form_is_what_its_documentation_says() -> None:
    digest = hashlib.sha256(bytes(7) + b"\x01" + b"a" + bytes(7) + b"\x02" + b"bc").digest()
    assert fingerprint([b"a", b"bc"]) == digest
    assert digest.hex() == GOLDEN["parts"]


def test_a_run_has_the_fingerprint_that_it_always_had() -> None:
    assert CreateRun.of(RUN_ID, ORG_ID, USER_ID, SPEC, "any-key").fingerprint.hex() == GOLDEN["create"]


@pytest.mark.parametrize("name", BODIES)
def test_an_event_has_the_fingerprint_that_it_always_had(name: str) -> None:
    assert append(BODIES[name]).fingerprint.hex() == GOLDEN[name]


def test_an_append_has_the_fingerprint_that_it_always_had() -> None:
    assert append(*BODIES.values()).fingerprint.hex() == GOLDEN["append"]


@pytest.mark.parametrize("digest", [b"", bytes(32)], ids=["as before", "with its input"])
def test_word_of_a_child_has_the_fingerprint_that_it_always_had(digest: bytes) -> None:
    """Whichever replica says it first, one of another age says the same."""
    told = ev.ChildStarted("c1", OTHER_RUN_ID, "quote", digest)
    command = TellChild.of(RUN_ID, ORG_ID, told)
    assert command.fingerprint.hex() == GOLDEN["child"]
    assert command.event.body == told


def test_as_received_it_is_the_same() -> None:
    """Whatever order the worker wrote fields and map entries in."""
    command = append(*BODIES.values())
    received = [EncodedBody.received(event_pb2.EventBody.FromString(event.data)) for event in command.events]
    again = Append.made_of(RUN_ID, ORG_ID, WORKER_ID, 7, "other", received)
    assert again.fingerprint == command.fingerprint


def test_what_is_not_compared_changes_no_fingerprint() -> None:
    text = BODIES["message"]
    other = Append.of("run_x", "org_x", "wrk_x", 9, "other", [text])
    assert other.fingerprint == append(text).fingerprint


def test_keys_have_the_ids_that_they_always_had() -> None:
    public_key = bytes(range(32))
    assert key_id_of(public_key) == GOLDEN["receipt key"]
    assert VerifierKey("openagents.dev/receipts/log_1", public_key).key_id.hex() == GOLDEN["log key"]
