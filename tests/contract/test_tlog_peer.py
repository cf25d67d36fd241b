"""Another implementation than ours makes the same trees, proofs and notes, and takes ours: Go's sumdb/tlog and note."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from oa_base.refusal import Refusal
from oa_runlog.proof import merkle
from oa_runlog.proof.checkpoint import verify_checkpoint
from oa_runlog.proof.signing import sign_checkpoint
from tests.contract.tlog_peer import BUILD_TIMEOUT_S, SIGNER, VECTORS, Log, PeerMissing, ask, build, one, vector_log


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The peer, compiled."""
    try:
        return build(tmp_path_factory.mktemp("tlog_peer"))
    except PeerMissing as missing:
        pytest.skip(f"{missing}; what it answered before is in vectors/tlog.json")


def decoded(many: list[str]) -> list[bytes]:
    return [base64.b64decode(text) for text in many]


def check_agreement(log: Log, answer: dict[str, Any]) -> None:
    """What the peer made is what we made; what we made holds there, and what it made holds here."""
    assert decoded(answer["roots"]) == log.roots
    ours = log.request()
    for kind in ("inclusion", "consistency"):
        assert all(found["valid"] for found in answer[kind])
        assert [found["proof"] for found in answer[kind]] == [made["proof"] for made in ours[kind]]
    for found in answer["inclusion"]:
        index, size = found["index"], found["size"]
        leaf = merkle.leaf_hash(log.leaves[index])
        merkle.verify_inclusion(leaf, index, size, decoded(found["proof"]), log.roots[size])
    for found in answer["consistency"]:
        old, new = found["old"], found["new"]
        merkle.verify_consistency(old, log.roots[old], new, log.roots[new], decoded(found["proof"]))
    assert answer["note_error"] == ""
    assert answer["note_text"] == ours["text"]
    assert base64.b64decode(answer["signed"]) == sign_checkpoint(len(log.leaves), log.roots[-1], SIGNER)
    assert verify_checkpoint(base64.b64decode(answer["signed"]), SIGNER.verifier_key).root == log.roots[-1]


def test_the_peers_recorded_answer_agrees_with_us() -> None:
    check_agreement(vector_log(), json.loads(VECTORS.read_text("utf-8")))


@pytest.mark.timeout(BUILD_TIMEOUT_S + 60)
def test_the_record_is_what_the_peer_answers(program: Path) -> None:
    assert ask(program, vector_log().request()) == json.loads(VECTORS.read_text("utf-8"))


@pytest.mark.timeout(BUILD_TIMEOUT_S + 60)
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 50])
def test_the_peer_agrees_about_logs_made_by_chance(program: Path, size: int) -> None:
    chance = random.Random(size)
    log = Log([chance.randbytes(chance.randint(0, 90)) for _ in range(size)])
    check_agreement(log, ask(program, log.request()))


@pytest.mark.timeout(BUILD_TIMEOUT_S + 60)
def test_the_peer_refuses_what_we_refuse(program: Path) -> None:
    """Tampered proofs and notes: two verdicts, one answer."""
    log, chance = vector_log(), random.Random(7)
    request = log.request()
    for entry in (*request["inclusion"], *request["consistency"]):
        proof = decoded(entry["proof"])
        match chance.randrange(3):
            case 0 if proof:
                proof.pop(chance.randrange(len(proof)))
            case 1 if proof:
                place = chance.randrange(len(proof))
                proof[place] = bytes([proof[place][0] ^ 1]) + proof[place][1:]
            case _:
                proof.append(chance.randbytes(32))
        entry["proof"] = [one(data) for data in proof]
    tampered = json.loads(json.dumps(request))
    request["note"] = one(base64.b64decode(request["note"]).replace(b"\n11\n", b"\n12\n"))
    answer = ask(program, request)
    assert "invalid signature" in answer["note_error"]
    for found, asked in zip(answer["inclusion"], tampered["inclusion"], strict=True):
        index, size = asked["index"], asked["size"]
        leaf = merkle.leaf_hash(log.leaves[index])
        assert found["valid"] is False
        with pytest.raises(Refusal):
            merkle.verify_inclusion(leaf, index, size, decoded(asked["proof"]), log.roots[size])
    for found, asked in zip(answer["consistency"], tampered["consistency"], strict=True):
        old, new = asked["old"], asked["new"]
        assert found["valid"] is False
        with pytest.raises(Refusal):
            merkle.verify_consistency(old, log.roots[old], new, log.roots[new], decoded(asked["proof"]))
