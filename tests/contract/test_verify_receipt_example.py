"""examples/verify_receipt, in another language and made after the pages about receipts alone, decides as we do."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format

from oa_base.refusal import Refusal
from oa_client.proofs.event_lines import event_line
from oa_client.proofs.tests.signed_log import Log
from oa_runlog import events as ev
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.verify import verify_record
from oa_runlog.state.reducer import replay
from oa_runlog.tests import values
from oa_runlog.tests.records import KEYS, MALLORY, SIGNER, Record, record, text
from oa_runlog.wire import decode_event
from oa_runlog.wire.receipts import receipt_to_wire
from oa_testing.postgres import REPOSITORY
from openagents.runtime.v1 import receipt_service_pb2
from tests.contract.histories.history import load

BUILD_TIMEOUT_S = 280
HISTORIES = sorted((REPOSITORY / "tests/contract/histories").glob("*/runs/*.jsonl"))
OTHER_ID = values.RUN_ID[:-1] + "Z"
RUN = record([text(b"one\n"), ev.ToolCall("c", "ls"), ev.ToolResult("c", failed=True), ev.Usage("m", 3, 4, 1)])
OTHER = record([text(b"two\n")], run_id=OTHER_ID)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no go, which compiles examples/verify_receipt")
    compiled = tmp_path_factory.mktemp("verify_receipt") / "verify_receipt"
    source = REPOSITORY / "examples/verify_receipt"
    subprocess.run([go, "build", "-o", str(compiled), "."], cwd=source, check=True, timeout=BUILD_TIMEOUT_S)
    return compiled


def said(program: Path, folder: Path, run: Record, proof: bytes = b"") -> str:
    """The word that the program ends with: a reason, or the run's id if everything holds."""
    receipt, events, proven = folder / "receipt.json", folder / "events.jsonl", folder / "proof.json"
    receipt.write_text(json_format.MessageToJson(receipt_to_wire(run.receipt)), "utf-8")
    lines = [event_line(decode_event(data).seq, data) for data in run.events]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    proven.write_bytes(proof)
    command = [str(program), "-key", base64.b64encode(SIGNER.public_key).decode()]
    command += ["-proof", str(proven)] if proof else []
    done = subprocess.run([*command, str(receipt), str(events)], capture_output=True, text=True, check=False)
    word = done.stdout.splitlines()[-1].partition(":")[0]
    assert done.returncode == (0 if word == run.receipt.run_id else 65), done.stdout + done.stderr
    return word


@pytest.mark.timeout(BUILD_TIMEOUT_S + 60)
def test_every_recorded_run_that_ended_is_proved(program: Path, tmp_path: Path) -> None:
    proved = 0
    for path in HISTORIES:
        history = load(path.read_text("utf-8"))
        state = replay(history.events)
        if state is None or state.finish is None:
            continue
        run = Record(history.run_id, list(history.events), SIGNER.sign(state, "log_1"))
        verify_record(run.receipt, KEYS, run.events)
        assert said(program, tmp_path, run) == run.run_id, path.name
        proved += 1
    assert proved > 20


def _with(change: Callable[[list[bytes]], object]) -> Record:
    events = list(RUN.events)
    change(events)
    return replace(RUN, events=events)


def _lied(signer_id: str) -> Record:
    facts = RUN.receipt.canonical_json.replace(b'"tool_failures":1', b'"tool_failures":0')
    return replace(RUN, receipt=replace(RUN.receipt, canonical_json=facts, key_id=signer_id))


def _signed_again() -> SignedReceipt:
    """A receipt that the authority itself signed, of totals that the events don't lead to."""
    state = replay(RUN.events)
    assert state is not None
    return SIGNER.sign(replace(state, totals=replace(state.totals, text_bytes=5)), "log_1")


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (_with(lambda events: events.pop(2)), "event_missing"),
        (_with(lambda events: events.insert(2, events.pop(3))), "event_misplaced"),
        (_with(lambda events: events.insert(3, events[2])), "event_doubled"),
        (_with(lambda events: events.pop()), "tail_cut"),
        (_with(lambda events: events.__setitem__(2, events[2].replace(b"one", b"own"))), "chain_mismatch"),
        (replace(RUN, receipt=replace(OTHER.receipt, run_id=RUN.run_id)), "receipt_foreign"),
        (replace(RUN, receipt=OTHER.receipt), "receipt_foreign"),
        (_lied(SIGNER.key_id), "signature_invalid"),
        (_lied(MALLORY.key_id), "unknown_key"),
        (replace(RUN, receipt=_signed_again()), "outcome_mismatch"),
    ],
)
def test_a_falsification_has_the_reason_that_we_give(run: Record, reason: str, program: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=reason):
        verify_record(run.receipt, KEYS, run.events, run_id=run.receipt.run_id)
    assert said(program, tmp_path, run) == reason


async def test_only_a_receipt_in_the_log_is_proved_to_be_in_it(program: Path, tmp_path: Path) -> None:
    runs = [RUN, *(record([], run_id=values.RUN_ID[:-1] + end) for end in "ABCDE")]
    log = Log(runs)
    for run in runs:
        proof = await log.inclusion_proof(run.run_id)
        answer = receipt_service_pb2.GetInclusionProofResponse(
            leaf_index=proof.leaf_index, hashes=proof.hashes, checkpoint=proof.checkpoint
        )
        shown = json_format.MessageToJson(answer).encode()
        assert said(program, tmp_path, run, shown) == run.run_id
        answer.checkpoint = proof.checkpoint.replace(b"\n6\n", b"\n7\n")
        assert said(program, tmp_path, run, json_format.MessageToJson(answer).encode()) == "signature_invalid"
    assert said(program, tmp_path, OTHER, shown) == "not_in_log"
