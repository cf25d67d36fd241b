"""The program without anything behind it: help, usage, refusals, and never a traceback."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from apps.cli.__main__ import run
from apps.cli.exits import MEANINGS, Exit, exit_of_run
from apps.cli.failures import exit_of_refusal, failed, next_step
from apps.cli.output import Output, bytes_words, ms_words
from apps.cli.pages import commands_of
from apps.cli.program import _COMMANDS, oa
from apps.cli.tests.program import REPOSITORY, Program
from oa_base.catalogue import all_reasons
from oa_base.refusal import Refusal
from oa_runlog.events import ExecResult, Outcome, RunFinished

COMMANDS = [path[1:] for path, _ in commands_of(oa, ("oa",))]
RUN = "run_01JD8V0000000000000000000A"
INVITATION, ORG, PERSON = (f"{kind}_01JD8V0000000000000000000A" for kind in ("inv", "org", "usr"))
OF_A_SITE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("account", "delete"): ("--confirm", "ada@example.org"),
    ("audit", "export"): ("audit.jsonl",),
    ("audit", "list"): (),
    ("audit", "verify"): (),
    ("invitation", "accept"): (INVITATION,),
    ("invitation", "decline"): (INVITATION,),
    ("invitation", "list"): (),
    ("invitation", "resend"): (INVITATION,),
    ("invitation", "revoke"): (INVITATION,),
    ("member", "invite"): ("bob@example.org",),
    ("member", "list"): (),
    ("member", "remove"): (PERSON,),
    ("member", "role"): (PERSON, "viewer"),
    ("org", "create"): ("acme",),
    ("org", "delete"): (ORG,),
    ("org", "leave"): (ORG,),
    ("org", "list"): (),
    ("org", "rename"): (ORG, "acme"),
    ("org", "restore"): (ORG,),
    ("org", "switch"): (ORG,),
    ("org", "transfer"): (ORG, PERSON),
    ("codex",): ("hello",),
    ("key", "create"): ("ci",),
    ("key", "list"): (),
    ("key", "rotate"): ("apk_01JD8V0000000000000000000A",),
    ("key", "revoke"): ("sva_01JD8V0000000000000000000A",),
    ("login",): ("--dev",),
    ("session", "list"): (),
    ("session", "revoke"): ("--others",),
    ("receipt", "keys"): (),
    ("receipt", "show"): (RUN,),
    ("receipt", "verify"): (RUN,),
    ("replay", "fetch"): (RUN, "-o", "run.oareplay"),
    ("replay", "save"): (RUN, "run.oareplay"),
    ("replay", "show"): (RUN,),
    ("run", "cancel"): (RUN,),
    ("run", "list"): (),
    ("run", "result"): (RUN,),
    ("run", "send"): (RUN, "hello"),
    ("request", "list"): (RUN,),
    ("request", "answer"): (RUN, "r1", "yes"),
    ("run", "show"): ("latest",),
    ("run", "start"): ("--", "true"),
    ("run", "tail"): (RUN,),
    ("schedule", "backfill"): ("nightly", "--from", "2026-01-01", "--to", "2026-01-02"),
    ("schedule", "create"): ("nightly", "--every", "1h", "--", "true"),
    ("schedule", "delete"): ("nightly",),
    ("schedule", "list"): (),
    ("schedule", "pause"): ("nightly",),
    ("schedule", "resume"): ("nightly",),
    ("schedule", "show"): ("nightly",),
    ("schedule", "trigger"): ("nightly",),
    ("status",): (),
    ("worker", "start"): ("--adapter", "exec"),
}
"""What a command is called with, if it speaks to a site and does nothing without it."""
NOT_OF_A_SITE = {("demo",), ("down",), ("logout",), ("replay", "verify"), ("up",)} | {
    name for name in COMMANDS if name[0] in {"admin", "completion"}
}
"""`oa logout` ends the session here, whatever happens there."""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path, {"OA_CONTROL_URL": f"http://127.0.0.1:{_closed_port()}"})


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _sign_in(home: Path, program: Program) -> None:
    """Credentials of a session that never was, for the site that the program goes to."""
    port = program._env["OA_CONTROL_URL"].rpartition(":")[2]
    folder = home / "config" / "openagents" / "sites" / f"127.0.0.1-{port}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "credentials.json").write_text(
        '{"user_id": "usr_1", "org_id": "org_1", "session_id": "ses_1", "email": "", "access_token": "secret-a", '
        '"access_expires_at": 9999999999, "refresh_token": "secret-r"}'
    )


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == Exit.OK
    assert capsys.readouterr().out.startswith(f"Usage: {' '.join(('oa', *command))}")


async def test_help_and_version_as_a_process(program: Program) -> None:
    assert (await program("--help")).stdout.startswith(b"Usage: oa [OPTIONS] COMMAND")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert (await program("--version")).stdout.decode() == f"oa, version {project['version']}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_json(command: tuple[str, ...]) -> None:
    found = {path[1:]: each for path, each in commands_of(oa, ("oa",))}[command]
    assert any("--json" in option.opts for option in found.params)


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("run", "start"),
        ("run", "show"),
        ("run", "list", "--limit", "0"),
        ("run", "list", "--status", "sleepy"),
        ("run", "start", "--env", "=x", "--", "true"),
        ("run", "start", "--stdin", "--adapter", "hello", "--input", "{}"),
        ("run", "start", "--tty", "--adapter", "hello", "--input", "{}"),
        ("schedule", "create", "nightly", "--", "true"),
        ("schedule", "create", "nightly", "--cron", "* * * * *", "--every", "1m", "--", "true"),
        ("schedule", "create", "nightly", "--cron", "* * * * *", "--anchor", "2026-01-01", "--", "true"),
        ("schedule", "create", "nightly", "--every", "1h", "--time-zone", "Europe/Zurich", "--", "true"),
        ("schedule", "create", "nightly", "--every", "1h", "--time-zone", "UTC", "--", "true"),
        ("run", "start", "--retry-delay", "1s", "--", "true"),
        ("run", "start", "--retention", "", "--", "true"),
        ("login", "--dev", "--paste"),
        ("login", "--dev", "--port", "8123"),
        ("schedule", "create", "nightly", "--every", "1m"),
        ("schedule", "create", "nightly", "--every", "1h", "--not-before", "+1h", "--", "true"),
        ("schedule", "create", "nightly", "--every", "1 minute", "--", "true"),
        ("schedule", "create", "nightly", "--every", "999999999999d", "--", "true"),
        ("schedule", "backfill", "nightly", "--from", "monday", "--to", "2026-01-01"),
        ("schedule", "backfill", "nightly", "--from", "2026-01-01"),
        ("worker", "start"),
        ("worker", "start", "--adapter", "telepathy"),
        ("receipt", "verify"),
        ("receipt", "verify", RUN, "--receipt", __file__),
        ("receipt", "verify", "--receipt", "/no/such/file"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "Error: " in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("admin", "keys", "rotate", "--stolen", ""),
        ("admin", "audit", "verify", "--org="),
        ("admin", "org", "list", "--person", ""),
        ("member", "invite", "bob@example.org", "--org", ""),
        ("invitation", "accept", ""),
        ("key", "create", "ci", "--account", ""),
        ("key", "create", "ci", "--scope", "runs.read", "--scope", ""),
        ("key", "rotate", "ci", "--idempotency-key", ""),
        ("audit", "list", "--actor", ""),
        ("run", "start", "--retention", "", "--", "true"),
    ],
    ids=" ".join,
)
def test_a_variable_of_a_script_that_is_not_set_is_no_option_left_out(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Exit.USAGE
    assert "It is empty. Give a value, or leave it out." in capsys.readouterr().err


def test_a_text_may_be_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OA_HOME", str(tmp_path / "stack"))
    monkeypatch.setenv("OA_CLIENT_HOME", str(tmp_path / "client"))
    assert run(("run", "cancel", RUN, "--reason", "")) == Exit.SIGN_IN


async def test_nobody_signed_in_where_no_stack_runs(tmp_path: Path) -> None:
    """To sign in is not the first thing to do there."""
    for arguments in (("run", "list"), ("key", "create", "ci"), ("worker", "start", "--adapter", "exec")):
        done = await Program(tmp_path)(*arguments)
        assert (done.status, done.stdout) == (Exit.SIGN_IN, b"")
        assert re.fullmatch(
            r"missing_authorization: no local stack runs, and nobody is signed in at http://127\.0\.0\.1:\d+; "
            r"start it with `oa up`, then sign in with `oa login`\n",
            done.stderr,
        )


async def test_wrong_usage_as_json(program: Program) -> None:
    done = await program("run", "start", "--json", "--bogus")
    assert (done.status, done.error["reason"]) == (Exit.USAGE, "usage")
    assert "--bogus" in done.error["message"]


async def test_nobody_signed_in(program: Program) -> None:
    for arguments in (("run", "list"), ("run", "tail", RUN), ("logout",), ("receipt", "show", RUN)):
        done = await program(*arguments)
        assert done.status == Exit.SIGN_IN
        assert "oa login" in done.stderr
        assert "oa up" not in done.stderr, "that is another site"


async def test_a_control_plane_that_is_not_there(program: Program, tmp_path: Path) -> None:
    _sign_in(tmp_path, program)
    done = await program("run", "list")
    assert done.status == Exit.UNREACHABLE
    assert done.stderr.startswith("unavailable: http://127.0.0.1:")
    assert "oa up" in done.stderr
    with_json = await program("run", "list", "--json")
    assert (with_json.status, with_json.stdout) == (Exit.UNREACHABLE, b"")
    assert (with_json.error["reason"], with_json.error["action"]) == ("unavailable", "retry")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NOT_OF_A_SITE], ids=" ".join)
async def test_every_command_says_in_one_line_that_control_is_not_there(
    command: tuple[str, ...], program: Program, tmp_path: Path
) -> None:
    _sign_in(tmp_path, program)
    done = await program(*command, *OF_A_SITE[command])
    assert (done.status, done.stdout) == (Exit.UNREACHABLE, b"")
    assert len(done.stderr.splitlines()) == 1
    assert re.match(r"unavailable: http://127\.0\.0\.1:\d+ can't be reached .*; is it running\?", done.stderr)


def test_what_happened_and_what_to_do_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failed(Output(), Refusal("rate_limited", "too many at once.", retry_after_ms=900))
    failed(Output(), Refusal("unavailable", "it ended, its last lines are:\n  boom"))
    assert capsys.readouterr().err.splitlines() == [
        "rate_limited: too many at once; try again in 1 s",
        "unavailable: it ended, its last lines are:; try again in a moment",
        "    boom",
    ]


async def test_no_secret_is_shown(program: Program, tmp_path: Path) -> None:
    _sign_in(tmp_path, program)
    done = await program("run", "show", RUN, env={"OA_DEBUG": "1", "OA_API_KEY": "oak_secret-k"})
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"), [("OA_CONTROL_URL", "nowhere"), ("OA_DEBUG", "perhaps"), ("OA_PORT_BASE", "70000")]
)
async def test_a_wrong_setting_is_named(tmp_path: Path, variable: str, value: str) -> None:
    done = await Program(tmp_path, {variable: value})("run", "list", "--json")
    assert done.status == Exit.REFUSED
    assert (done.error["reason"], done.error["field"]) == ("invalid_setting", variable)


async def test_a_worker_without_the_codex_that_it_is_to_drive(program: Program, tmp_path: Path) -> None:
    _sign_in(tmp_path, program)
    done = await program("worker", "start", "--adapter", "codex", "--json", env={"OA_CODEX_PROGRAM": "no-such-codex"})
    assert done.status == Exit.REFUSED
    assert (done.error["reason"], done.error["field"]) == ("invalid_setting", "OA_CODEX_PROGRAM")


async def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = await Program(tmp_path, {"OA_CLIENT_HOME": str(file / "client")})("run", "list")
    assert done.status == Exit.REFUSED
    assert str(file) in done.stderr


async def test_a_file_that_can_not_be_written_is_not_blamed_on_our_folders(program: Program) -> None:
    done = await program("admin", "secrets", "new", "--database", "db.example:5432", "/proc/none/secrets")
    assert done.status == Exit.REFUSED
    assert "/proc/none" in done.stderr
    assert "see to that, or give another path" in done.stderr
    assert "OA_HOME" not in done.stderr


async def test_an_id_that_is_none(program: Program, tmp_path: Path) -> None:
    _sign_in(tmp_path, program)
    done = await program("run", "tail", "nonsense")
    assert done.status == Exit.REFUSED
    assert "invalid_value (run_id)" in done.stderr


async def test_status_without_a_stack(tmp_path: Path) -> None:
    program = Program(tmp_path)
    done = await program("status")
    assert (done.status, done.stdout) == (Exit.UNREACHABLE, b"No local stack runs. Start it: oa up\n")
    assert (await program("status", "--json")).documents[0]["running"] is False
    assert (await program("down")).stdout == b"No stack runs here.\n"


async def test_status_of_a_control_plane_elsewhere(program: Program, tmp_path: Path) -> None:
    assert (await program("status")).status == Exit.SIGN_IN
    _sign_in(tmp_path, program)
    assert (await program("status")).status == Exit.UNREACHABLE


async def test_offline_verification_of_what_is_no_receipt(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file.write_text("{")
    done = await program("receipt", "verify", "--receipt", str(file), "--key", "A" * 43 + "=")
    assert (done.status, done.stderr.split(":")[0]) == (Exit.NOT_PROVED, "artifact_malformed")
    no_key = await program("receipt", "verify", "--receipt", str(file))
    assert no_key.status == Exit.NOT_PROVED
    bad_key = await program("receipt", "verify", "--receipt", str(file), "--key", "%%%")
    assert "32 bytes" in bad_key.stderr


def test_every_reason_has_an_exit_code_and_every_code_a_meaning() -> None:
    codes = {exit_of_refusal(Refusal(info.reason, "m")) for info in all_reasons()}
    assert codes == {Exit.REFUSED, Exit.SIGN_IN, Exit.UNREACHABLE, Exit.NOT_PROVED}
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize(
    ("outcome", "measured", "code"),
    [
        (Outcome.SUCCEEDED, ExecResult(0), Exit.OK),
        (Outcome.SUCCEEDED, None, Exit.OK),
        (Outcome.FAILED, ExecResult(1), 1),
        (Outcome.FAILED, ExecResult(5), 5),
        (Outcome.FAILED, ExecResult(255), 255),
        (Outcome.FAILED, ExecResult(None, 9), 137),
        (Outcome.FAILED, ExecResult(None, 15), 143),
        (Outcome.FAILED, None, Exit.RUN_FAILED),
        (Outcome.FAILED, ExecResult(None), Exit.RUN_FAILED),
        (Outcome.FAILED, ExecResult(0), Exit.RUN_FAILED),
        (Outcome.FAILED, ExecResult(256), Exit.RUN_FAILED),
        (Outcome.CANCELED, ExecResult(None, 15), Exit.RUN_CANCELED),
        (Outcome.CANCELED, None, Exit.RUN_CANCELED),
    ],
)
def test_a_followed_run_ends_oa_as_its_command_would(outcome: Outcome, measured: ExecResult | None, code: int) -> None:
    assert exit_of_run(RunFinished(outcome, exec=measured)) == code


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_help_of_a_command_that_is_not_loaded_is_its_own(name: str) -> None:
    assert (oa.commands[name].help or "").startswith(_COMMANDS[name][1].rstrip("."))


_COMMAND = re.compile(r"apps\.cli\.commands\.(\w+\.\w+)")
HEAVY = ("asyncio", "asyncpg", "cryptography", "google.protobuf", "grpc", "httpx", "rich", "websockets")


def _loaded_by(tmp_path: Path, *arguments: str) -> list[str]:
    """The modules that `oa` with these arguments has loaded in the end."""
    code = (
        "import sys; from apps.cli.__main__ import run; status = run(sys.argv[1:]); "
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(status)"
    )
    command, env = [sys.executable, "-c", code, *arguments], Program(tmp_path)._env
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr.split()


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_needs_no_command_loads_none(option: str, tmp_path: Path) -> None:
    loaded = _loaded_by(tmp_path, option)
    assert "apps.cli.program" in loaded
    assert [name for name in loaded if name in HEAVY or name.startswith("apps.cli.commands")] == []


def test_a_call_loads_no_command_line_of_a_library() -> None:
    """httpx loads rich with its own."""
    code = "import sys, apps.cli.__main__, httpx; print({'httpx', 'rich', 'pygments'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "{'httpx'}\n"


@pytest.mark.parametrize(
    ("command", "modules"),
    [
        (("run", "list"), {"runs.runs", "runs.run_options"}),
        (("receipt", "show"), {"runs.receipts", "runs.trusted_keys"}),
        (("login",), {"identity.account", "identity.provider_login"}),
    ],
)
def test_a_command_loads_no_module_of_other_commands(
    command: tuple[str, ...], modules: set[str], tmp_path: Path
) -> None:
    loaded = {found[1] for name in _loaded_by(tmp_path, *command, "--help") if (found := _COMMAND.fullmatch(name))}
    assert loaded == modules


def test_the_help_has_the_codes() -> None:
    assert {code for code in Exit if code >= 64} <= {int(number) for number in re.findall(r"\d+", oa.help or "")}


def test_what_to_do_next() -> None:
    assert next_step(Refusal("rate_limited", "wait", retry_after_ms=1500)) == "try again in 2 s"
    assert next_step(Refusal("rate_limited", "too many; try again in 57 s", retry_after_ms=57_000)) == ""
    assert next_step(Refusal("invalid_token", "who?; sign in again")) == "sign in with `oa login`"
    assert next_step(Refusal("unavailable", "nobody answers")) == "try again in a moment"
    assert next_step(Refusal("unavailable", "nobody answers; look at its log")) == ""
    assert next_step(Refusal("missing_authorization", "Run `oa login`.")) == ""
    assert next_step(Refusal("port_in_use", "Taken.", field="OA_CONTROL_HTTP_PORT")) == ""
    too_old = Refusal("unsupported_client_build", "the site serves 0.2.0 to 0.3.0; use one of these")
    assert next_step(too_old) == "install a newer version of oa"


def test_words_for_sizes_and_times() -> None:
    assert [bytes_words(size) for size in (0, 1023, 1536, 3 << 20, 5 << 30)] == [
        *("0 bytes", "1023 bytes", "1.5 KiB", "3.0 MiB", "5.0 GiB"),
    ]
    assert [ms_words(ms) for ms in (0, 999, 2500, 200_000)] == ["0 ms", "999 ms", "2.5 s", "3 min 20 s"]


WITHOUT = """
import sys
module = sys.argv.pop(1)
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from openagents._oa import main
main()
"""
"""`oa` where the module that its first argument names is not installed."""


@pytest.mark.parametrize("module", ["click", "rich", "platformdirs", "httpx", "ulid"])
def test_without_its_extra_it_says_what_to_install(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, module, "run", "list"]
    env = Program(tmp_path, {"OA_CONTROL_URL": "http://127.0.0.1:9", "OA_API_KEY": "oak_test"})._env
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (Exit.REFUSED, "")
    assert done.stderr.endswith(f"the module {module} is not installed; run pip install 'openagents-runtime[cli]'\n")
    assert done.stderr.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_a_defect(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, "oa_client.client", "run", "list"]
    env = Program(tmp_path, {"OA_API_KEY": "oak_test"})._env
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("internal: a defect of ours: ModuleNotFoundError")
