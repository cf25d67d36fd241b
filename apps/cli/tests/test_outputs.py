"""Outputs that are closed, full, or read by nobody; locales that lack a character; bytes that are no text."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from apps.cli.exits import Exit
from apps.cli.tests.program import REPOSITORY, TIMEOUT_S, Done, Program
from oa_platform.process.interrupts import AS_JSON
from oa_runlog import events as ev
from oa_runlog.proof.replay import artifact_lines
from oa_runlog.tests.records import SIGNER, record, text
from oa_runlog.tests.values import WORKER_ID

RUN = record([text("你\n".encode()), text(b"\xff\n"), ev.Message(ev.MessageRole.ASSISTANT, "title 你 ü")])
KEY = base64.b64encode(SIGNER.public_key).decode()
SHOW = ("replay", "show", "--key", KEY, "run.replay")
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "run.replay").write_bytes(b"".join(artifact_lines(RUN.receipt, RUN.events)))
    return Program(tmp_path)


def one_line(done: Done, word: str) -> None:
    assert done.stderr.count("\n") == 1, done.stderr
    assert word in done.stderr


# ------------------------------------------------------------------------------------------------- stdout


READER_GONE = """
import os, sys
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
COMMANDS = {"help": ("--help",), "version": ("--version",), "run": SHOW, "run as JSON": (*SHOW, "--json")}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
async def test_a_reader_who_has_enough_is_no_error(
    program: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    headed = await program.in_shell('"$@" | head -1; exit ${PIPESTATUS[0]}', *arguments)
    assert (headed.status, headed.stdout.count(b"\n")) == (Exit.OK, 1)
    (tmp_path / "gone.py").write_text(READER_GONE)
    done = await program.in_shell('"$1" gone.py 1 "$@"', *arguments)
    assert (done.status, done.stdout) == (Exit.OK, b"")
    assert done.stderr in ("", f"started on {WORKER_ID}\n")


@pytest.mark.parametrize(
    ("redirected", "why"), [(">/dev/full", "No space left on device"), (">&-", "closed"), ("1</dev/null", "closed")]
)
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), SHOW], ids=["help", "version", "run"])
async def test_what_can_not_be_written_is_said_once(
    program: Program, arguments: tuple[str, ...], redirected: str, why: str
) -> None:
    done = await program.in_shell(f'"$@" {redirected}', *arguments)
    assert done.status == Exit.OUTPUT_LOST
    assert done.stderr.count("output_lost") == 1
    assert why in done.stderr
    silent = await program.in_shell(f'"$@" {redirected} 2>&-', *arguments)
    assert (silent.status, silent.stderr) == (Exit.OUTPUT_LOST, "")


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
async def test_it_is_one_line_and_with_json_one_document(program: Program, redirected: str) -> None:
    done = await program.in_shell(f'"$@" {redirected}', "--version")
    one_line(done, "output_lost: standard output")
    with_json = await program.in_shell(f'"$@" {redirected}', *SHOW, "--json")
    assert (with_json.status, with_json.error["reason"]) == (Exit.OUTPUT_LOST, "output_lost")
    refused = await program.in_shell(f'"$@" {redirected}', "run", "list")
    assert refused.status == Exit.SIGN_IN, "nothing was to be written"
    one_line(refused, "oa login")


MEMBERS = ["reason", "message", "field", "metadata", "retryAfterMs", "action"]


async def test_every_error_has_the_same_members(program: Program) -> None:
    lost = await program.in_shell('"$@" >/dev/full', *SHOW, "--json")
    usage = await program.in_shell('"$@"', "frobnicate", "--json")
    refused = await program.in_shell('"$@"', "run", "list", "--json")
    interrupted = json.loads(AS_JSON)["error"]
    assert [list(error) for error in (lost.error, usage.error, refused.error, interrupted)] == [MEMBERS] * 4
    assert usage.error["action"] == "fix_request"


async def test_what_failed_stays_so_when_it_can_not_be_shown(program: Program) -> None:
    done = await program.in_shell('"$@" >/dev/full', "status")
    assert done.status == Exit.UNREACHABLE
    one_line(done, "output_lost")


# ------------------------------------------------------------------------------------------------- stderr and stdin


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "2> >(exec true)", ">&- 2>&-", "<&- >&- 2>&-"])
async def test_without_stderr_the_status_says_it(program: Program, tmp_path: Path, redirected: str) -> None:
    for arguments, status in ((("frobnicate",), Exit.USAGE), (("run", "list"), Exit.SIGN_IN), ((), Exit.USAGE)):
        done = await program.in_shell(f'"$@" {redirected}', *arguments)
        assert (done.status, done.stdout, done.stderr) == (status, b"", "")
        (tmp_path / "gone.py").write_text(READER_GONE)
        assert (await program.in_shell('"$1" gone.py 2 "$@"', *arguments)).status == status


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
async def test_what_goes_to_stdout_does_not_need_stderr(program: Program, redirected: str) -> None:
    done = await program.in_shell(f'"$@" {redirected}', *SHOW)
    assert done.status == Exit.OK
    assert done.stdout.startswith("你\n".encode() + b"\xff\n")


async def test_what_can_not_be_asked_for(program: Program) -> None:
    closed = await program.in_shell('"$@" <&-', "login")
    assert (closed.status, "standard input is closed" in closed.stderr) == (Exit.USAGE, True)
    ended = await program.in_shell('"$@" </dev/null', "login")
    assert ended.status == Exit.USAGE
    assert ended.stderr.startswith("E-mail: \n")
    assert "there is no more input; run the command on a terminal" in ended.stderr
    as_json = await program.in_shell('"$@" </dev/null', "login", "--json")
    assert (as_json.status, '"reason":"usage"' in as_json.stderr) == (Exit.USAGE, True)


# ------------------------------------------------------------------------------------------------- locales and bytes


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        (C_LOCALE, rb"title \u4f60 \xfc"),
        ({"PYTHONIOENCODING": "latin-1"}, b"title \\u4f60 \xfc"),
        ({"PYTHONIOENCODING": "utf-8"}, "title 你 ü".encode()),
        ({"LC_ALL": "C"}, "title 你 ü".encode()),
    ],
    ids=["C", "Latin-1", "UTF-8", "C, which Python takes for UTF-8"],
)
async def test_what_a_locale_lacks_comes_with_a_backslash(program: Program, env: dict[str, str], shown: bytes) -> None:
    done = await program.in_shell('"$@"', *SHOW, env=env)
    assert (done.status, done.stdout) == (Exit.OK, "你\n".encode() + b"\xff\n" + shown + b"\n")
    with_json = await program.in_shell('"$@"', *SHOW, "--json", env=env)
    assert (with_json.status, len(with_json.documents)) == (Exit.OK, len(RUN.events))
    assert "title 你 ü".encode() in with_json.stdout


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("run", "start", "--", b"printf", b"\xff"), "argv[1]"),
        (("run", "start", "--title", b"\xff", "--", "true"), "--title"),
        (("run", "start", "--env", "A=1", "--env", b"B=\xff", "--", "true"), "--env[1]"),
        (("run", "start", "--cwd", b"/\xff", "--", "true"), "--cwd"),
        (("run", "cancel", "--reason", b"\xed\xa0\x80", "run_1"), "--reason"),
        (("run", "show", b"\xff"), "run_id"),
        (("login", "--email", b"\xff@example.org"), "--email"),
        (("worker", "start", "--adapter", "exec", "--name", b"\xff"), "--name"),
        (("demo", "--", b"\xff"), "argv[0]"),
    ],
    ids=str,
)
async def test_bytes_that_are_no_text_are_refused_by_name(
    program: Program, arguments: tuple[str | bytes, ...], field: str
) -> None:
    words = arguments.index("--") if "--" in arguments else len(arguments)
    done = await program.in_shell('"$@"', *arguments[:words], "--json", *arguments[words:])
    assert (done.status, done.stdout) == (Exit.REFUSED, b"")
    assert (done.error["reason"], done.error["field"]) == ("invalid_value", field)


async def test_wrong_usage_may_hold_any_bytes(program: Program) -> None:
    for arguments in ((b"\xff\x1b[2J",), ("run", b"--\xff\x1b[2J"), ("run", "list", "--status", b"\xff\x1b[2J")):
        done = await program.in_shell('"$@"', *arguments)
        assert (done.status, r"\x1b[2J" in done.stderr) == (Exit.USAGE, True)


async def test_a_path_may_hold_any_bytes(program: Program, tmp_path: Path) -> None:
    name = b"\xff\x1b[2J.replay"
    (tmp_path / os.fsdecode(name)).write_bytes((tmp_path / "run.replay").read_bytes())
    for action in ("show", "verify"):
        done = await program.in_shell('"$@"', "replay", action, "--key", KEY, name)
        assert done.status == Exit.OK, done.stderr
    gone = await program.in_shell('"$@"', "replay", "show", "--key", KEY, b"gone-" + name)
    assert (gone.status, r"\udcff\x1b[2J" in gone.stderr) == (Exit.USAGE, True)
    home = await program.in_shell("OA_HOME=$PWD/$'\\xff' \"$@\"", "status")
    assert (home.status, home.stdout) == (Exit.UNREACHABLE, b"No local stack runs. Start it: oa up\n")


@pytest.mark.parametrize("variable", ["OA_CONTROL_URL", "OA_API_KEY", "OA_KHALA_URL", "OA_DEBUG"])
async def test_a_setting_that_is_no_text_is_named(program: Program, variable: str) -> None:
    done = await program.in_shell(f"export {variable}=$'http://\\xff:1'; \"$@\"", "run", "list", "--json")
    assert (done.status, done.error["reason"], done.error["field"]) == (Exit.REFUSED, "invalid_setting", variable)


# --------------------------------------------------------------------------------------------- the working directory


REMOVED = 'mkdir gone && cd gone && rmdir ../gone && "$@"'


async def test_a_working_directory_that_was_removed(program: Program, tmp_path: Path) -> None:
    for arguments in (("status",), ("down",), ("run", "list"), ("up",), ("login", "--dev")):
        done = await program.in_shell(REMOVED, *arguments, env={"OA_HOME": "relative"})
        assert done.status == Exit.REFUSED
        assert done.stderr.startswith("invalid_setting: the working directory was removed;")
    whole = (*SHOW[:-1], str(tmp_path / "run.replay"))
    assert (await program.in_shell(REMOVED, *whole)).status == Exit.OK
    assert (await program.in_shell(REMOVED, "status")).status == Exit.UNREACHABLE
    not_found = await program.in_shell(REMOVED, "replay", "verify", "--key", KEY, "run.replay")
    assert not_found.status == Exit.USAGE


# ------------------------------------------------------------------------------------------------- a terminal


@pytest.mark.parametrize("columns", ["0", "00", "-1", "²", "wide", "9" * 5000])
async def test_a_width_that_is_none_means_that_it_is_unknown(program: Program, columns: str) -> None:
    env = {"COLUMNS": columns, "LINES": columns}
    done = await program.in_shell('"$@"', *SHOW, env=env)
    assert (done.status, "title 你 ü\n".encode() in done.stdout) == (Exit.OK, True)
    refused = await program.in_shell('"$@"', "run", "list", env=env)
    one_line(refused, "oa login")
    usage = await program.in_shell('"$@"', "frobnicate", env=env)
    assert "No such command" in usage.stderr


def on_a_terminal(home: Path, *arguments: str) -> bytes:
    """What a terminal gets from the program as a process, and nothing that the terminal adds."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    command = [sys.executable, "-m", "apps.cli", *arguments]
    with subprocess.Popen(command, cwd=home, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
            while piece := os.read(ours, 1 << 16):
                written += piece
        os.close(ours)
        assert process.wait(TIMEOUT_S) == Exit.OK
    return written


def test_on_a_terminal_a_run_has_its_colours_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = b"\x1b[31mred\x1b]0;pwned\x07\x1b[2J10%\r20%\n\xc2\x9b1m"
    run = record([text(hostile), ev.Message(ev.MessageRole.ASSISTANT, "\x1b[2Jwords")])
    (tmp_path / "run.replay").write_bytes(b"".join(artifact_lines(run.receipt, run.events)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen")))
    monkeypatch.setenv("OA_HOME", str(tmp_path / "stack"))
    monkeypatch.setenv("TERM", "xterm")
    shown = on_a_terminal(tmp_path, *SHOW)
    red = b"\x1b[31mred" + rb"\x1b]0;pwned\x07\x1b[2J10%" + b"\n20%\n" + rb"\x9b1m" + b"\x1b[0m"
    assert red + b"\n" + rb"\x1b[2Jwords" + b"\n" in shown
    assert hostile in on_a_terminal(tmp_path, *SHOW, "--raw")
