"""`oa replay` on files, offline: each kind of tampering has its own reason; and on a real stack."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from apps.cli.__main__ import run
from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_client.core import wire
from oa_localstack.stack import Stack
from oa_runlog.proof.receipt import SignedReceipt
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.tests.records import MALLORY, SIGNER, Record, record, text

RUN = record([text(b"one\n"), text(b"two\n")])
OTHER = record([text(b"x")], "run_01JD8V0000000000000000000B")
ANOTHER_PAST = record([text(b"one\n"), text(b"three\n")])
KEY = base64.b64encode(SIGNER.public_key).decode()
Refused = Callable[..., tuple[int, str]]


def lines_of(one: Record, receipt: SignedReceipt | None = None) -> list[bytes]:
    return list(artifact_lines(receipt or one.receipt, one.events))


def signed_by_mallory(key_id: str) -> SignedReceipt:
    data = RUN.receipt.canonical_json
    return SignedReceipt(RUN.run_id, data, MALLORY._key.sign(data), key_id)


def flipped(line: bytes) -> bytes:
    members = json.loads(line)
    data = bytearray(base64.b64decode(members["event"]))
    data[-2] ^= 1
    members["event"] = base64.b64encode(data).decode()
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def with_receipt_of(trailer: bytes, other: bytes) -> bytes:
    members = json.loads(trailer) | {"receipt": json.loads(other)["receipt"]}
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode() + b"\n"


LINES = lines_of(RUN)
TAMPERED = {
    "changed byte": ([*LINES[:3], flipped(LINES[3]), *LINES[4:]], "chain_mismatch"),
    "dropped event": ([*LINES[:3], *LINES[4:]], "event_missing"),
    "doubled event": ([*LINES[:3], LINES[2], *LINES[3:]], "event_doubled"),
    "swapped events": ([*LINES[:2], LINES[3], LINES[2], *LINES[4:]], "event_misplaced"),
    "cut tail": (LINES[:-1], "tail_cut"),
    "a tail without the last event": (lines_of(Record(RUN.run_id, RUN.events[:-1], RUN.receipt)), "tail_cut"),
    "foreign receipt": ([*LINES[:-1], with_receipt_of(LINES[-1], lines_of(OTHER)[-1])], "receipt_foreign"),
    "receipt changed": (
        [*LINES[:-1], LINES[-1].replace(RUN.run_id.encode(), OTHER.run_id.encode())],
        "signature_invalid",
    ),
    "foreign key": (lines_of(RUN, signed_by_mallory(MALLORY.key_id)), "unknown_key"),
    "re-signed receipt": (lines_of(RUN, signed_by_mallory(RUN.receipt.key_id)), "signature_invalid"),
    "not an artifact": ([b"hello\n"], "artifact_malformed"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody is signed in, nothing is pinned, and no site is there."""
    monkeypatch.setenv("OA_CLIENT_HOME", str(tmp_path / "client"))
    monkeypatch.setenv("OA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OA_CONTROL_URL", "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def refused(home: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs `oa` with these arguments: its exit code, and the reason that it gave."""

    def go(*arguments: str | Path) -> tuple[int, str]:
        status = run([*map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert captured.out == ""
        return status, str(json.loads(captured.err)["error"]["reason"])

    return go


@pytest.mark.parametrize("what", TAMPERED)
@pytest.mark.parametrize("action", ["verify", "show"])
def test_a_tampered_file_is_refused_with_its_own_reason(home: Path, refused: Refused, action: str, what: str) -> None:
    lines, reason = TAMPERED[what]
    file = home / "run.replay"
    file.write_bytes(b"".join(lines))
    assert refused("replay", action, "--key", KEY, file) == (Exit.NOT_PROVED, reason)


def test_a_file_is_proved_compressed_or_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, packed = home / "run.replay", home / "run.replay.zst"
    plain.write_bytes(b"".join(LINES))
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    for file in (plain, packed):
        assert run(["replay", "verify", "--json", "--key", KEY, str(file)]) == Exit.OK
        assert json.loads(capsys.readouterr().out)["eventsChecked"] == len(RUN.events)
    assert run(["replay", "show", "--key", KEY, str(packed)]) == Exit.OK
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("cut", [10, -10])
def test_a_compressed_file_that_is_broken_says_so(home: Path, refused: Refused, cut: int) -> None:
    file = home / "run.replay.zst"
    file.write_bytes(zstandard.compress(b"".join(LINES))[:cut])
    status, reason = refused("replay", "verify", "--key", KEY, file)
    assert status == Exit.NOT_PROVED
    assert reason in ("artifact_malformed", "tail_cut")


SKIPPABLE = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"note"


@pytest.mark.parametrize(
    "after", [SKIPPABLE, b"x", zstandard.compress(b""), zstandard.compress(b"more\n"), bytes(5000)], ids=range(5)
)
@pytest.mark.parametrize("action", ["verify", "show"])
def test_nothing_may_follow_the_end_of_a_compressed_file(
    home: Path, refused: Refused, action: str, after: bytes
) -> None:
    file = home / "run.replay.zst"
    file.write_bytes(zstandard.compress(b"".join(LINES)) + after)
    assert refused("replay", action, "--key", KEY, file) == (Exit.NOT_PROVED, "artifact_malformed")


def test_a_few_bytes_that_stand_for_very_many_are_refused(home: Path, refused: Refused) -> None:
    file = home / "run.replay.zst"
    file.write_bytes(zstandard.compress(b"".join(LINES[:2]) + bytes(1 << 26)))
    assert refused("replay", "verify", "--key", KEY, file) == (Exit.NOT_PROVED, "artifact_malformed")


def test_a_kept_receipt_shows_that_the_past_was_rewritten(home: Path, refused: Refused) -> None:
    """Both are signed by the authority's own key: only who kept the receipt can tell."""
    kept, file = home / "receipt.json", home / "run.replay"
    kept.write_text(json.dumps(wire.receipt_document(RUN.receipt)), "utf-8")
    file.write_bytes(b"".join(LINES))
    assert run(["replay", "verify", "--key", KEY, "--receipt", str(kept), str(file)]) == Exit.OK
    file.write_bytes(b"".join(lines_of(ANOTHER_PAST)))
    assert run(["replay", "verify", "--key", KEY, str(file)]) == Exit.OK


def test_a_kept_receipt_of_another_past_or_run_is_refused(home: Path, refused: Refused) -> None:
    kept, file = home / "receipt.json", home / "run.replay"
    file.write_bytes(b"".join(LINES))
    for other in (ANOTHER_PAST, OTHER):
        kept.write_text(json.dumps(wire.receipt_document(other.receipt)), "utf-8")
        arguments = ("replay", "verify", "--key", KEY, "--receipt", kept, file)
        assert refused(*arguments) == (Exit.NOT_PROVED, "receipt_foreign")


def test_without_a_key_nothing_is_proved(home: Path, refused: Refused) -> None:
    file = home / "run.replay"
    file.write_bytes(b"".join(LINES))
    assert refused("replay", "verify", file) == (Exit.NOT_PROVED, "unknown_key")


def test_what_is_neither_file_nor_run_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "show", "gone.replay"]) == Exit.USAGE
    assert run(["receipt", "verify", "--log", "--receipt", __file__]) == Exit.USAGE
    assert "gone.replay" in capsys.readouterr().err


def test_a_file_comes_before_a_run_whose_id_begins_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert run(["replay", "show", "01jd8v", "--key", KEY]) == Exit.SIGN_IN, "asked the site"
    (home / "01jd8v").write_bytes(b"".join(LINES))
    capsys.readouterr()
    assert run(["replay", "show", "01jd8v", "--key", KEY]) == Exit.OK
    assert capsys.readouterr().out == "one\ntwo\n"


# ------------------------------------------------------------------------------------------------- on a real stack


@pytest.mark.long
async def test_artifacts_and_the_log_of_receipts_of_a_real_stack(tmp_path: Path, stack: Stack) -> None:
    program = Program(tmp_path, {"OA_HOME": str(stack.home), "OA_CLIENT_HOME": str(tmp_path / "client")})
    assert (await program("login", "--dev", "--email", "ann@example.com")).status == Exit.OK
    async with program.started("worker", "start", "--adapter", "exec"):
        runs = [await _run(program, word) for word in ("one", "two")]
    fetched, saved = tmp_path / "fetched", tmp_path / "saved"
    assert (await program("replay", "fetch", "-o", str(fetched), runs[0])).status == Exit.OK
    assert (await program("replay", "save", runs[0], str(saved))).status == Exit.OK
    assert fetched.read_bytes() == saved.read_bytes(), "the authority's artifact is what was watched"
    assert (await program("replay", "show", runs[0])).stdout == b"one\n"
    assert (await program("replay", "show", runs[0][4:-1].lower())).stdout == b"one\n"
    assert _leftovers(tmp_path) == []

    logged = [await _logged(program, run_id) for run_id in runs]
    assert {one["leafIndex"] for one in logged} == {0, 1}
    assert logged[-1]["size"] == 2
    await _rolled_back(program, tmp_path, runs[0])


async def _run(program: Program, word: str) -> str:
    done = await program("run", "start", "--json", "--", "echo", word)
    assert done.status == Exit.OK
    return str(done.documents[0]["event"]["runId"])


async def _logged(program: Program, run_id: str) -> dict[str, Any]:
    done = await program("receipt", "verify", "--log", "--json", run_id)
    assert done.status == Exit.OK, done.stderr
    log: dict[str, Any] = done.documents[0]["log"]
    return log


def _leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".oa-replay-*"))


def _see_a_longer_log(home: Path) -> None:
    (kept,) = home.rglob("receipt-log.json")
    note = json.loads(kept.read_text("utf-8"))["checkpoint"]
    kept.write_text(json.dumps({"checkpoint": note.replace("\n2\n", "\n7\n", 1)}), "utf-8")


async def _rolled_back(program: Program, home: Path, run_id: str) -> None:
    """A checkpoint that was seen is ahead of what the site shows now: its log lost receipts."""
    _see_a_longer_log(home)
    refused = await program("receipt", "verify", "--log", "--json", run_id)
    assert (refused.status, refused.error["reason"]) == (Exit.NOT_PROVED, "log_rolled_back")
    assert (await program("receipt", "keys", "--pin")).status == Exit.OK
    assert (await program("receipt", "verify", "--log", run_id)).status == Exit.OK


def _log_of_runtime(stack: Stack) -> str:
    return (stack.home / "logs" / "runtime.log").read_text("utf-8")


@pytest.fixture
def archiving(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that starts now moves runs of the class `short` to the archive a second after their end."""
    monkeypatch.setenv("OA_ARCHIVE_URL", str(home / "archive"))
    monkeypatch.setenv("OA_RETENTION_CLASSES", "default=keep,short=1s")
    monkeypatch.setenv("OA_ARCHIVE_POLL_MS", "100")


async def test_an_archived_run_is_shown_and_proved_as_before(tmp_path: Path, archiving: None, stack: Stack) -> None:
    program = Program(tmp_path, {"OA_HOME": str(stack.home), "OA_CLIENT_HOME": str(tmp_path / "client")})
    assert (await program("login", "--dev", "--email", "ann@example.com")).status == Exit.OK
    async with program.started("worker", "start", "--adapter", "exec"):
        started = await program("run", "start", "--detach", "--retention", "short", "--", "echo", "one")
        run_id = started.stdout.decode().strip()
        async with asyncio.timeout(TIMEOUT_S):
            while (await program("receipt", "show", run_id)).status != Exit.OK:
                await asyncio.sleep(0.2)
    async with asyncio.timeout(TIMEOUT_S):
        while "run_archived" not in _log_of_runtime(stack):
            await asyncio.sleep(0.1)
    assert "short" in (await program("run", "show", run_id)).stdout.decode()
    tail = await program("run", "tail", "--json", run_id)
    assert tail.error["reason"] == "retention_floor_breach"
    assert f"oa replay show {run_id}" in tail.error["message"]
    assert (await program("replay", "show", run_id)).stdout == b"one\n"
    assert (await program("receipt", "verify", "--log", run_id)).status == Exit.OK
    assert run_id in (await program("run", "list")).stdout.decode()
