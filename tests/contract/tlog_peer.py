"""Asks Go's transparency log code (tlog_peer_go/main.go) about logs, proofs and notes.

`python -m tests.contract.tlog_peer` writes what it answers about one log to vectors/tlog.json, so that its verdict
stands where there is no Go.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_runlog.proof import merkle
from oa_runlog.proof.merkle import Frontier, Node
from oa_runlog.proof.signing import NoteSigner, sign_checkpoint

SOURCE = Path(__file__).parent / "tlog_peer_go"
VECTORS = Path(__file__).parent / "vectors" / "tlog.json"
FETCH_TIMEOUT_S = 120
BUILD_TIMEOUT_S = 280
NAME = "example.com/receipts"
PRIVATE_KEY = bytes(range(32))
SIGNER = NoteSigner(NAME, Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY))


class PeerMissing(Exception):
    """There is no Go here, or its module can't be fetched."""


@cache
def build(directory: Path) -> Path:
    """The program, compiled into `directory`. Raises PeerMissing."""
    go = shutil.which("go")
    if go is None:
        raise PeerMissing("there is no go")
    try:
        subprocess.run([go, "mod", "download"], cwd=SOURCE, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise PeerMissing("golang.org/x/mod can't be fetched") from None
    program = directory / "tlog_peer"
    command = [go, "build", "-o", str(program), "."]
    subprocess.run(command, cwd=SOURCE, check=True, timeout=BUILD_TIMEOUT_S)
    return program


def ask(program: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The peer's answer."""
    done = subprocess.run([program], input=json.dumps(request).encode(), capture_output=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@dataclass
class Log:
    """Our log, with our proofs of everything in it."""

    leaves: list[bytes]
    roots: list[bytes] = field(default_factory=list)
    nodes: dict[Node, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frontier = Frontier()
        self.roots.append(frontier.root)
        for leaf in self.leaves:
            frontier, made = frontier.append(merkle.leaf_hash(leaf))
            self.nodes.update(made)
            self.roots.append(frontier.root)

    def request(self) -> dict[str, Any]:
        """All our proofs and the newest checkpoint, for the peer to judge."""
        sizes = range(1, len(self.leaves) + 1)
        return {
            "leaves": encoded(self.leaves),
            "inclusion": [
                {"index": index, "size": size, "proof": encoded(merkle.inclusion_proof(index, size, self.nodes))}
                for size in sizes
                for index in range(size)
            ],
            "consistency": [
                {"old": old, "new": new, "proof": encoded(merkle.consistency_proof(old, new, self.nodes))}
                for new in sizes
                for old in range(1, new + 1)
            ],
            "keys": [SIGNER.verifier_key.text],
            "note": one(sign_checkpoint(len(self.leaves), self.roots[-1], SIGNER)),
            "signer_key": signer_key(),
            "text": f"{NAME}\n{len(self.leaves)}\n{one(self.roots[-1])}\n",
        }


def signer_key() -> str:
    """Our private key in the form of Go's package."""
    key_id = SIGNER.verifier_key.key_id.hex()
    return f"PRIVATE+KEY+{NAME}+{key_id}+{one(bytes([1]) + PRIVATE_KEY)}"


def one(data: bytes) -> str:
    """Bytes as they stand in the exchange."""
    return base64.b64encode(data).decode()


def encoded(many: list[bytes]) -> list[str]:
    """Several."""
    return [one(data) for data in many]


def vector_log() -> Log:
    """The log that vectors/tlog.json is about."""
    return Log([b"receipt %d" % number for number in range(11)])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        answer = ask(build(Path(directory)), vector_log().request())
    VECTORS.write_text(json.dumps(answer, indent=1) + "\n", "utf-8")
