"""`oa receipt verify` on files, offline: what is proved, and what is refused, with which exit code."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.cli.__main__ import run
from apps.cli.exits import Exit
from oa_client.core import wire
from oa_client.proofs.event_lines import event_line
from oa_runlog.tests.records import SIGNER, record, text

RUN = record([text(b"one\n"), text("two\u2028\n".encode())])
KEY = base64.b64encode(SIGNER.public_key).decode()
LINES = [
    json.dumps(event_line(seq, payload), ensure_ascii=False).encode() + b"\n"
    for seq, payload in enumerate(RUN.events, start=1)
]
RECEIPT = json.dumps(wire.receipt_document(RUN.receipt)).encode()
Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    """`oa receipt verify` of these bytes: its exit code, and the reason that it gave ("" for none)."""
    monkeypatch.setenv("OA_CLIENT_HOME", str(tmp_path / "client"))
    monkeypatch.setenv("OA_CONTROL_URL", "http://127.0.0.1:9")

    def go(receipt: bytes, events: bytes | None, *, key: str | None = KEY) -> tuple[int, str]:
        files = {"--receipt": receipt, "--events": events}
        arguments: list[str] = []
        for option, content in files.items():
            if content is not None:
                file = tmp_path / option.strip("-")
                file.write_bytes(content)
                arguments += [option, str(file)]
        status = run(["receipt", "verify", "--json", *arguments, *(["--key", key] if key else [])])
        captured = capsys.readouterr()
        return status, "" if status == Exit.OK else str(json.loads(captured.err)["error"]["reason"])

    return go


def test_a_record_in_files_is_proved(verify: Verify) -> None:
    assert verify(RECEIPT, b"".join(LINES)) == (Exit.OK, "")
    assert verify(RECEIPT, b"".join(LINES).removesuffix(b"\n")) == (Exit.OK, "")
    assert verify(RECEIPT, None) == (Exit.OK, "")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([LINES[0], LINES[1].replace(b'"seq": 2', b'"seq": 3', 1), *LINES[2:]], "artifact_malformed"),
        ([*LINES[:2], LINES[2].replace(b"b25lCg==", b"dHdvCg==", 1), *LINES[3:]], "artifact_malformed"),
        ([*LINES[:2], LINES[2].replace(b"{", b'{"bytes":"",', 1), *LINES[3:]], "artifact_malformed"),
        ([*LINES, b"\n"], "artifact_malformed"),
        ([b"[" * 100_000], "artifact_malformed"),
        ([b"hello\n"], "artifact_malformed"),
        ([b"\xff\n"], "artifact_malformed"),
        (LINES[:-1], "tail_cut"),
        ([], "tail_cut"),
        ([LINES[0], *LINES], "event_doubled"),
        ([*LINES[:2], LINES[3], LINES[2], LINES[4]], "event_misplaced"),
        ([*LINES[:2], *LINES[3:]], "event_missing"),
    ],
    ids=["seq", "text", "key twice", "blank", "deep", "text file", "bytes", "cut", "empty", "doubled", "moved", "gone"],
)
def test_other_files_are_not(verify: Verify, lines: list[bytes], reason: str) -> None:
    assert verify(RECEIPT, b"".join(lines)) == (Exit.NOT_PROVED, reason)


@pytest.mark.parametrize(
    "receipt", [b"", b"[]", b"[" * 100_000, b"\xff", b"{}{}", RECEIPT.replace(b"{", b'{"keyId":"x",', 1)], ids=range(6)
)
def test_what_is_no_receipt_says_so(verify: Verify, receipt: bytes) -> None:
    assert verify(receipt, None) == (Exit.NOT_PROVED, "artifact_malformed")


@pytest.mark.parametrize("key", ["x", "AAAA", KEY + "QUJD", KEY.replace("=", "") + "==", "é"])
def test_what_is_no_key_says_so(verify: Verify, key: str) -> None:
    assert verify(RECEIPT, None, key=key) == (Exit.REFUSED, "invalid_value")


def test_pins_that_can_not_be_read_are_not_taken_for_none(verify: Verify, tmp_path: Path) -> None:
    folder = tmp_path / "client" / "sites" / "127.0.0.1-9"
    folder.mkdir(parents=True)
    pins = folder / "receipt-keys.json"
    pins.write_text(json.dumps({SIGNER.key_id: KEY}))
    assert verify(RECEIPT, None, key=None) == (Exit.OK, "")
    for broken in ("", "[]", f'{{"a":"{KEY}","a":"{KEY}"}}', '{"a":7}', '{"a":"QR=="}', "[" * 100_000):
        pins.write_text(broken)
        assert verify(RECEIPT, None, key=None) == (Exit.NOT_PROVED, "unknown_key")


def test_pinned_keys_are_shown_while_the_site_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OA_CLIENT_HOME", str(tmp_path))
    monkeypatch.setenv("OA_CONTROL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OA_API_KEY", "oak_" + "x" * 43)
    folder = tmp_path / "sites" / "127.0.0.1-9"
    assert run(["receipt", "keys"]) == Exit.UNREACHABLE, "none is pinned"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "receipt-keys.json").write_text(json.dumps({SIGNER.key_id: KEY}))
    assert run(["receipt", "keys", "--pin"]) == Exit.UNREACHABLE, "nothing is trusted anew"
    capsys.readouterr()
    assert run(["receipt", "keys"]) == Exit.OK
    shown = capsys.readouterr()
    assert KEY in shown.out
    assert "can't be asked" in shown.err
    assert run(["receipt", "keys", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"keys": {SIGNER.key_id: KEY}}
