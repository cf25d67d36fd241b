"""The program by hand against a real stack: what a person would type, and what they get."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from apps.cli.commands.identity.account import dev_code
from apps.cli.exits import Exit
from apps.cli.tests.program import TIMEOUT_S, Program
from oa_platform.config.ports import PORT_OFFSETS
from oa_testing.postgres import free_port, scratch_directory
from oa_testing.stack import StackUnderTest

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def stack(shared_stack: StackUnderTest) -> StackUnderTest:
    """Each test has people of its own."""
    return shared_stack


async def signed_in(stack: StackUnderTest, home: Path, email: str) -> Program:
    program = Program.of_a_person(home, stack)
    done = await program("login", "--dev", "--email", email, "--json")
    assert done.status == Exit.OK, done.stderr
    assert done.documents[0]["email"] == email
    return program


@asynccontextmanager
async def worker(program: Program) -> AsyncIterator[asyncio.subprocess.Process]:
    async with program.started("worker", "start", "--adapter", "exec", "--name", "t", "--json") as process:
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert b"attached" in await process.stdout.readline()
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ann(shared_stack: StackUnderTest) -> AsyncIterator[Program]:
    """A person with a worker, for the tests of what a person does by hand."""
    home = scratch_directory()
    program = await signed_in(shared_stack, home, "ann@example.org")
    async with worker(program):
        yield program
    shutil.rmtree(home, ignore_errors=True)


async def test_a_worker_drains_and_a_person_signs_out(stack: StackUnderTest, tmp_path: Path) -> None:
    program = await signed_in(stack, tmp_path, "anton@example.org")
    async with worker(program) as process:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == Exit.OK
    status = await program("status", "--json", env={"OA_HOME": str(stack.home)})
    assert status.status == Exit.OK
    assert {each["name"] for each in status.documents[0]["processes"] if each["ready"]} == {
        *("control", "runtime", "projector", "khala_gateway", "postgres")
    }
    remote = await program("status", "--json", env={"OA_HOME": str(tmp_path)})
    assert "anton@example.org" in remote.documents[0]["signedIn"]
    assert (await program("logout")).status == Exit.OK
    assert (await program("run", "list")).status == Exit.SIGN_IN


async def test_what_was_done_shows_is_exported_and_is_proved(stack: StackUnderTest, tmp_path: Path) -> None:
    """By the site, from the file, and by a head that was kept."""
    program = await signed_in(stack, tmp_path, "audrey@example.org")
    made = await program("key", "create", "audited", "--json")
    account = made.documents[0]["serviceAccount"]["serviceAccountId"]
    listed = await program("audit", "list", "--action", "service_account.created", "--target", account, "--json")
    [event] = listed.documents
    assert (event["action"], event["target"], event["outcome"]) == (
        *("service_account.created", account),
        "AUDIT_OUTCOME_DONE",
    )
    assert (await program("audit", "list", "--actor", "usr_none", "--json")).documents == []
    mine = (await program("audit", "list", "--mine", "--json")).documents
    assert account in {each.get("target") for each in mine}
    async with asyncio.timeout(TIMEOUT_S):
        while account.encode() not in await _exported(program, tmp_path):
            await asyncio.sleep(0.2)
    exported = tmp_path / "audit.jsonl"
    file = str(exported)
    head = (await program("audit", "verify", file, "--json")).documents[0]["head"]
    online = (await program("audit", "verify", "--head", head, "--json")).documents[0]
    assert (online["verified"], online["headCompared"]) == (True, True)
    lines = await asyncio.to_thread(lambda: exported.read_bytes().splitlines(keepends=True))
    await asyncio.to_thread(exported.write_bytes, b"".join(lines[:-1]))
    cut = await program("audit", "verify", file, "--head", head, "--json")
    assert (cut.status, cut.error["reason"]) == (Exit.NOT_PROVED, "log_rolled_back")
    lines[-1] = lines[-1].replace(b"127.0.0.1", b"127.0.0.2")
    await asyncio.to_thread(exported.write_bytes, b"".join(lines))
    changed = await program("audit", "verify", file, "--json")
    assert (changed.status, changed.error["reason"]) == (Exit.NOT_PROVED, "chain_mismatch")
    wrong = await program("audit", "verify", file, "--head", "1:00")
    assert wrong.status == Exit.USAGE


async def test_operators_read_what_happened_in_no_org(stack: StackUnderTest, tmp_path: Path) -> None:
    await signed_in(stack, tmp_path, "olga@example.org")
    where = {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"127.0.0.1:{stack.ports.control_grpc}"}
    program = Program.of_a_person(tmp_path, stack, where)
    for what in ("block", "unblock"):
        assert (await program("admin", "user", what, "olga@example.org")).status == Exit.OK
    account = (await program("admin", "user", "show", "olga@example.org", "--json")).documents[0]
    asked = (await program("admin", "audit", "list", "--action", "challenge.started", "--json")).documents
    assert asked
    assert {each.get("orgId", "") for each in asked} == {""}
    of_org = ("admin", "audit", "list", "--org", account["orgId"], "--target", account["subject"], "--json")
    assert {"subject.blocked", "subject.unblocked"} <= {each["action"] for each in (await program(*of_org)).documents}
    assert (await program("admin", "audit", "list", "--actor", "usr_none", "--json")).documents == []

    file, known = str(tmp_path / "installation.jsonl"), ""
    async with asyncio.timeout(TIMEOUT_S):
        while not known or known.startswith("0:"):
            exported = await program("admin", "audit", "export", file, "--json")
            assert exported.status == Exit.OK, exported.stderr
            known = exported.documents[0]["head"]
    assert exported.documents[0]["orgId"] == ""
    offline = (await program("audit", "verify", file, "--head", known, "--json")).documents[0]
    online = (await program("admin", "audit", "verify", "--head", known, "--json")).documents[0]
    assert (offline["headCompared"], online["headCompared"]) == (True, True)
    forged = f"{known.partition(':')[0]}:{'0' * 64}"
    refused = await program("admin", "audit", "verify", "--head", forged, "--json")
    assert (refused.status, refused.error["reason"]) == (Exit.NOT_PROVED, "log_forked")
    other = await program("admin", "audit", "list", "--org", "org_1", "--json")
    assert other.error["field"] == "org_id"


async def test_operators_end_sessions_and_restore_orgs(stack: StackUnderTest, tmp_path: Path) -> None:
    await signed_in(stack, tmp_path, "otto@example.org")
    where = {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"127.0.0.1:{stack.ports.control_grpc}"}
    program = Program.of_a_person(tmp_path, stack, where)
    org_id = (await program("org", "create", "team", "--json")).documents[0]["orgId"]
    assert (await program("org", "delete", org_id)).status == Exit.OK
    deleted = await program("admin", "org", "list", "--person", "otto@example.org", "--deleted", "--json")
    assert [each["orgId"] for each in deleted.documents] == [org_id]
    restored = await program("admin", "org", "restore", org_id)
    assert (restored.status, restored.stdout.decode().strip()) == (Exit.OK, f"{org_id} (team) is open.")
    shown = (await program("admin", "org", "show", org_id)).stdout.decode()
    assert "open" in shown
    assert "otto@example.org" in shown

    (session,) = (await program("admin", "session", "list", "otto@example.org", "--json")).documents
    assert (await program("admin", "session", "revoke", "otto@example.org")).status == Exit.USAGE
    ended = await program("admin", "session", "revoke", "otto@example.org", "--all", "--json")
    assert ended.documents == [{"sessionId": session["sessionId"], "revoked": True}]
    assert (await program("session", "list", "--json")).error["reason"] == "token_revoked"
    again = await program("admin", "session", "revoke", "otto@example.org", session["sessionId"])
    assert (again.status, again.stdout.decode().strip()) == (Exit.OK, "Revoked 0 sessions.")


async def _exported(program: Program, tmp_path: Path) -> bytes:
    done = await program("audit", "export", str(tmp_path / "audit.jsonl"), "--json")
    assert done.status == Exit.OK, done.stderr
    return await asyncio.to_thread((tmp_path / "audit.jsonl").read_bytes)


async def test_a_schedule_shows_is_triggered_backfilled_and_deleted(ann: Program) -> None:
    """What is scheduled shows, runs on request and for times that are past, and ends."""
    cron = ("--cron", "30 2 * * *", "--time-zone", "Europe/Zurich")
    made = await ann("schedule", "create", "nightly", *cron, "--json", "--", "sh", "-c", "echo nightly")
    assert made.documents[0]["cron"] == {"expression": "30 2 * * *", "timeZone": "Europe/Zurich"}
    again = await ann("schedule", "create", "nightly", "--every", "1h", "--json", "--", "true")
    assert (again.status, again.error["reason"], again.error["field"]) == (Exit.REFUSED, "already_exists", "name")
    run_id = (await ann("schedule", "trigger", "nightly")).stdout.decode().strip()
    assert (await ann("run", "tail", run_id, "--from-start")).stdout == b"nightly\n"
    state = await ann("run", "tail", run_id, "--snapshot")
    assert (state.status, state.stdout) == (Exit.OK, b"nightly\n")
    assert re.search(r"from event \d+: succeeded . 8 bytes of output", state.stderr)
    days = ("--from", "2026-10-24", "--to", "2026-10-26")  # on the second one the clocks are put back
    past = await ann("schedule", "backfill", "nightly", *days, "--json")
    assert [each["nominalTime"] for each in past.documents] == ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"]
    paused = await ann("schedule", "pause", "nightly", "--reason", "holidays")
    assert paused.stdout == b"nightly is paused: holidays\n"
    shown = (await ann("schedule", "show", "latest")).stdout.decode()
    assert "30 2 * * * (Europe/Zurich)" in shown
    assert shown.count("backfill") == 2
    assert run_id in shown
    assert b"nightly   paused" in (await ann("schedule", "list")).stdout
    assert (await ann("schedule", "resume", "nightly")).stdout == b"nightly is active.\n"
    assert (await ann("schedule", "delete", "nightly")).status == Exit.OK
    assert (await ann("schedule", "show", "nightly")).status == Exit.REFUSED


async def test_the_outcome_of_a_command_is_that_of_its_run(ann: Program) -> None:
    """Exit codes and outputs are those of the run."""
    code = "import sys; sys.stdout.buffer.write(b'out\\xff\\n'); print('err', file=sys.stderr); sys.exit(3)"
    failed = await ann("run", "start", "--", sys.executable, "-c", code)
    assert (failed.status, failed.stdout) == (3, b"out\xff\n")
    assert "err\n" in failed.stderr
    assert "nonzero_exit" in failed.stderr
    missing = await ann("run", "start", "no-such-command", "--json")
    assert missing.status == Exit.RUN_FAILED
    unknown = await ann("run", "start", "--json", "--retention", "short", "true")
    assert (unknown.status, unknown.error["field"]) == (Exit.REFUSED, "spec.retention_class")
    slow = await ann("run", "start", "--timeout-ms", "300", "sleep", "60")
    assert (slow.status > 128, "timeout" in slow.stderr) == (True, True)
    killed = await ann("run", "start", "sh", "-c", "kill -9 $$")
    assert killed.status == 128 + signal.SIGKILL
    again = await ann("run", "start", "--retries", "1", "--retry-delay", "10ms", "sh", "-c", "echo x; exit 5")
    assert (again.status, again.stdout) == (5, b"x\nx\n")
    assert "attempt 1 failed (nonzero_exit)" in again.stderr
    overrun = await ann("run", "start", "--json", "--run-timeout", "300ms", "sleep", "60")
    assert (overrun.status, overrun.documents[-1]["event"]["body"]["runFinished"]["reason"]) == (
        Exit.RUN_FAILED,
        "run_timeout",
    )
    there = await ann("run", "start", "--cwd", "/", "--env", "GREETING=hello", "sh", "-c", 'pwd; echo "$GREETING"')
    assert there.stdout == b"/\nhello\n"


async def test_a_thread_is_busy(ann: Program) -> None:
    thread = ("run", "start", "--thread", "thr-1", "--if-busy")
    first = await ann(*thread, "enqueue", "--detach", "--not-before", "+1h", "true")
    assert first.status == Exit.OK
    busy = await ann(*thread, "reject", "--json", "true")
    assert (busy.status, busy.error["reason"]) == (Exit.REFUSED, "thread_busy")
    instead = await ann(*thread, "interrupt", "echo", "instead")
    assert instead.stdout == b"instead\n"
    shown = await ann("run", "show", first.stdout.decode().strip(), "--json")
    assert shown.documents[0]["status"] == "RUN_STATUS_CANCELED"


async def test_a_run_is_shown_and_proved(ann: Program, tmp_path: Path) -> None:
    """A run as JSON; its receipt verified by id, from files, and not when a byte was changed."""
    started = await ann("run", "start", "--json", "--title", "greeting", "--", "echo", "hello")
    assert started.status == Exit.OK
    assert [line["seq"] for line in started.documents] == list(range(1, len(started.documents) + 1))
    run_id = str(started.documents[0]["event"]["runId"])
    again = await ann("run", "tail", "--from-start", "--json", run_id)
    assert again.stdout == started.stdout
    assert (await ann("receipt", "verify", run_id)).status == Exit.OK

    receipt, events, changed = tmp_path / "receipt.json", tmp_path / "events.jsonl", tmp_path / "changed.jsonl"
    receipt.write_bytes((await ann("receipt", "show", "--json", run_id)).stdout)
    events.write_bytes(again.stdout)
    lines = again.stdout.splitlines(keepends=True)
    changed.write_bytes(b"".join(lines[:-1]))
    offline = {"OA_CONTROL_URL": ann._env["OA_CONTROL_URL"]}
    verify = ("receipt", "verify", "--receipt", str(receipt))
    assert (await ann(*verify, "--events", str(events), env=offline)).status == Exit.OK
    assert (await ann(*verify, env=offline)).status == Exit.OK
    assert (await ann(*verify, "--events", str(changed), env=offline)).status == Exit.NOT_PROVED
    await _replay(ann, tmp_path, run_id, started.stdout)
    foreign_key = "A" * 43 + "="
    assert (await ann(*verify, "--key", foreign_key)).status == Exit.NOT_PROVED
    await _reads(ann, run_id)


async def _replay(program: Program, home: Path, run_id: str, events: bytes) -> None:
    """The run as one file: the same for everybody, proved offline, and not after a byte was changed."""
    file, again = home / "run.replay", home / "again.replay"
    for each in (file, again):
        assert (await program("replay", "save", run_id, str(each))).status == Exit.OK
    assert file.read_bytes() == again.read_bytes()
    offline = {"OA_CONTROL_URL": program._env["OA_CONTROL_URL"]}
    verified = await program("replay", "verify", "--json", str(file), env=offline)
    assert (verified.status, verified.documents[0]["runId"]) == (Exit.OK, run_id)
    shown = await program("replay", "show", "--json", str(file), env=offline)
    assert (shown.status, shown.stdout) == (Exit.OK, events)
    again.write_bytes(file.read_bytes().replace(b"text.delta", b"text.delte", 1))
    for action in ("verify", "show"):
        changed = await program("replay", action, str(again))
        assert (changed.status, changed.stdout) == (Exit.NOT_PROVED, b"")


async def _reads(program: Program, run_id: str) -> None:
    shown = await program("run", "show", run_id)
    assert b"greeting" in shown.stdout
    async with asyncio.timeout(TIMEOUT_S):
        while run_id not in [each["runId"] for each in (await program("run", "list", "--json")).documents]:
            await asyncio.sleep(0.1)
    assert b"greeting" in (await program("run", "list")).stdout
    unknown = await program("run", "show", "run_01JD8V0000000000000000000A", "--json")
    assert (unknown.status, unknown.error["reason"]) == (Exit.REFUSED, "not_found")


async def test_foreign_text_is_only_shown(ann: Program) -> None:
    """A title that would clear the screen, and say that it is another's, is only shown."""
    hostile = "x\x1b]0;pwned\a\x1b[2J\u202e\x9b"
    shown = rb"x\x1b]0;pwned\x07\x1b[2J\u202e\x9b"
    started = await ann("run", "start", "--detach", "--title", hostile, "--", "true")
    run_id = started.stdout.decode().strip()
    async with asyncio.timeout(TIMEOUT_S):
        while shown not in (listed := await ann("run", "list")).stdout:
            await asyncio.sleep(0.1)
    assert b"\x1b" not in listed.stdout
    assert shown in (await ann("run", "show", run_id)).stdout
    assert (await ann("run", "show", "--json", run_id)).documents[0]["spec"]["title"] == hostile


async def test_a_run_is_canceled_while_it_is_followed(ann: Program) -> None:
    detached = await ann("run", "start", "--detach", "--", "sh", "-c", "echo started; sleep 3600")
    run_id = detached.stdout.decode().strip()
    async with ann.started("run", "tail", run_id) as tail:
        assert tail.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert await tail.stdout.readline() == b"started\n"
            assert (await ann("run", "cancel", "--reason", "enough", run_id)).status == Exit.OK
            assert await tail.wait() == Exit.RUN_CANCELED
    early = await ann("receipt", "show", run_id)
    assert early.status == Exit.OK


async def test_an_interrupted_command_leaves_its_run_alone(ann: Program) -> None:
    """Ctrl-C leaves the run alone, and a later tail goes on where this one stopped."""
    script = "echo one; while [ ! -e go ]; do sleep .05; done; echo two"
    async with ann.started("run", "start", "--cwd", str(ann._home), "sh", "-c", script) as start:
        assert start.stdout is not None
        assert start.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert await start.stdout.readline() == b"one\n"
            start.send_signal(signal.SIGINT)
            assert await start.wait() == Exit.INTERRUPTED
            words = (await start.stderr.read()).decode()
    run_id = next(word for word in words.split() if word.startswith("run_"))
    assert f"oa run tail {run_id}" in words
    (ann._home / "go").touch()
    rest = await ann("run", "tail", run_id)
    assert (rest.status, rest.stdout) == (Exit.OK, b"two\n")


async def test_a_script_with_an_api_key(stack: StackUnderTest, tmp_path: Path) -> None:
    """A service account needs no session: it starts, follows and lists runs; people of its org see them, too."""
    homes = [tmp_path / name for name in ("person", "script")]
    for home in homes:
        home.mkdir()
    person = await signed_in(stack, homes[0], "carl@example.org")
    made = await person("key", "create", "ci")
    key, account = made.stdout.decode().strip(), made.stderr.split()[1]
    assert key.startswith("oak_")
    listed = await person("key", "list", "--json")
    assert account in [each["serviceAccountId"] for each in listed.documents]
    assert key.encode() not in listed.stdout

    script = Program.of_a_person(homes[1], stack, {"OA_API_KEY": key})
    async with worker(script):
        started = await script("run", "start", "--", "echo", "hello")
        assert (started.status, started.stdout) == (Exit.OK, b"hello\n"), started.stderr
    run_id = next(word for word in started.stderr.split() if word.startswith("run_"))
    assert (await script("receipt", "verify", run_id)).status == Exit.OK
    for who, options in ((script, ()), (script, ("--mine",)), (person, ())):
        async with asyncio.timeout(TIMEOUT_S):
            while run_id not in await _ids(who, *options):
                await asyncio.sleep(0.1)
    assert run_id not in await _ids(person, "--mine")
    assert (await script("key", "create", "more")).status == Exit.REFUSED

    assert (await person("key", "revoke", "ci")).stdout == f"Revoked {account}.\n".encode()
    assert account not in (await person("key", "list")).stdout.decode()
    refused = await script("run", "list", "--json")
    assert (refused.status, refused.error["reason"]) == (Exit.SIGN_IN, "invalid_api_key")


async def test_a_personal_token_is_made_rotated_and_ended(stack: StackUnderTest, tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("person", "old", "new")]
    for home in homes:
        home.mkdir()
    person = await signed_in(stack, homes[0], "dora@example.org")
    assert (await person("key", "create", "n", "--personal")).status == Exit.REFUSED, "it has to have an end"
    made = await person("key", "create", "laptop", "--personal", "--scope", "runs.read", "--ttl", "1d")
    old, key_id = made.stdout.decode().strip(), made.stderr.split()[1]
    [listed] = (await person("key", "list", "--personal", "--json")).documents
    assert (listed["apiKeyId"], listed["scopes"]) == (key_id, ["runs.read"])
    assert old.startswith(listed["prefix"])

    rotate = ("key", "rotate", key_id[:-1], "--overlap", "1h", "--idempotency-key", "lost-1")
    rotated = await person(*rotate)
    new = rotated.stdout.decode().strip()
    assert (await person(*rotate)).stdout == rotated.stdout, "as if the answer had been lost"
    programs = [
        Program.of_a_person(home, stack, {"OA_API_KEY": key}) for home, key in zip(homes[1:], (old, new), strict=True)
    ]
    for program in programs:
        assert (await program("run", "list")).status == Exit.OK
        refused = await program("run", "start", "--json", "--", "true")
        assert (refused.status, refused.error["reason"]) == (Exit.REFUSED, "missing_scope")
        assert (await program("key", "create", "more", "--personal", "--ttl", "1h")).status == Exit.REFUSED
        assert (await program("key", "revoke", key_id)).status == Exit.REFUSED

    several = await person("key", "revoke", "apk_01", "--json")
    assert (several.error["reason"], several.error["metadata"]["count"]) == ("invalid_value", "2")
    assert (await person("key", "revoke", key_id)).status == Exit.OK
    assert [(await program("run", "list")).status for program in programs] == [Exit.SIGN_IN, Exit.OK]
    again = await person("key", "rotate", key_id, "--json")
    assert (again.status, again.error["reason"]) == (Exit.REFUSED, "already_exists")


async def test_an_operator_blocks_a_person(stack: StackUnderTest, tmp_path: Path) -> None:
    email = "mallory@example.org"
    person = Program.of_a_person(tmp_path, stack)
    login = ("login", "--dev", "--email", email)
    assert (await person(*login)).status == Exit.OK
    where = {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"127.0.0.1:{stack.ports.control_grpc}"}
    operator = Program.of_a_person(tmp_path, stack, where)
    blocked = await operator("admin", "user", "block", email, "--json")
    assert blocked.documents[0]["blockTime"], blocked.stderr
    assert (await person("run", "list")).status == Exit.SIGN_IN
    shown = await operator("admin", "user", "show", blocked.documents[0]["subject"], "--json")
    assert shown.documents == blocked.documents
    unblocked = await operator("admin", "user", "unblock", email, "--json")
    assert "blockTime" not in unblocked.documents[0]
    assert (await person("run", "list")).status == Exit.SIGN_IN

    unknown = await operator("admin", "user", "show", "nobody@example.org", "--json")
    assert (unknown.status, unknown.error["reason"]) == (Exit.REFUSED, "not_found")
    stranger = Program.of_a_person(tmp_path, stack, {**where, "OA_OPERATOR_TOKEN": "guessed"})
    refused = await stranger("admin", "user", "block", email, "--json")
    assert refused.error["reason"] == "service_not_accepted"


async def _ids(program: Program, *options: str) -> list[str]:
    return [each["runId"] for each in (await program("run", "list", "--json", *options)).documents]


async def test_signing_in_by_hand_asks_again_after_a_wrong_code(stack: StackUnderTest, tmp_path: Path) -> None:
    program = Program.of_a_person(tmp_path, stack)
    async with program.started("login", "--email", "bob@example.org") as login:
        assert login.stdin is not None
        assert login.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert b"bob@example.org" in await login.stderr.readline()
            code = await dev_code(stack.home / "dev-mail.jsonl", "bob@example.org")
            login.stdin.write(b"00000000\n" + code.encode() + b"\n")
            assert await login.wait() == Exit.OK
    caller = await program("status", "--json", env={"OA_HOME": str(tmp_path)})
    assert "bob@example.org" in caller.documents[0]["signedIn"]


async def test_a_proxy_of_the_environment_is_in_nobodys_way(scratch: Path, dead_proxies: dict[str, str]) -> None:
    """Stack, sign-in, worker, run, Khala and receipts with a proxy that is not there, and no `no_proxy`."""
    base = str(free_port(tuple(PORT_OFFSETS.values())))
    program = Program(scratch, {"OA_HOME": str(scratch / "home"), "OA_PORT_BASE": base, **dead_proxies})
    done = await program("demo", "--once", "--", "echo", "hello")
    assert done.status == Exit.OK, done.stderr
    assert "│ hello" in done.stdout.decode()


async def test_the_demo_tells_the_whole_path_and_proves_it(tmp_path: Path, stack: StackUnderTest) -> None:
    """On the stack that runs already, with the shortest of runs, one with output, and one that fails."""
    program = Program(tmp_path, {"OA_HOME": str(stack.home)})
    for argv, status in ((("true",), Exit.OK), (("seq", "100000"), Exit.OK), (("false",), Exit.RUN_FAILED)):
        done = await program("demo", "--once", "--json", "--", *argv)
        assert done.status == status, done.stderr
        by_step: dict[str, list[dict[str, object]]] = {}
        for document in done.documents:
            by_step.setdefault(str(document["step"]), []).append(document)
        assert all(check["holds"] for check in by_step["check"])
        assert by_step["cut"][0]["afterSeq"] == 2
        assert len(by_step["resume"]) == len(by_step["cut"])
        assert by_step["receipt"][0]["verified"] is True
        assert by_step["done"] == [{"step": "done", "ok": True}]
    plain = await program("demo", "--once", "--", "echo", "hello")
    assert "│ hello" in plain.stdout.decode()
    assert b"\x1b" not in plain.stdout


async def test_two_people_share_an_org(stack: StackUnderTest, tmp_path: Path) -> None:
    homes = tmp_path / "ann", tmp_path / "bob"
    for home in homes:
        home.mkdir()
    ann = await signed_in(stack, homes[0], "emma@example.org")
    bob = await signed_in(stack, homes[1], "frank@example.org")
    made = await ann("org", "create", "Search team", "--switch", "--json")
    org_id = made.documents[0]["orgId"]
    run_id = (await ann("run", "start", "--detach", "true")).stdout.decode().strip()
    assert (await bob("run", "show", run_id)).status == Exit.REFUSED
    assert (await bob("org", "switch", org_id, "--json")).error["reason"] == "not_found"

    assert (
        b"Invited frank@example.org as viewer"
        in (await ann("member", "invite", "Frank@example.org", "--role", "viewer")).stdout
    )
    assert b"frank@example.org" in (await ann("invitation", "list", "--sent")).stdout
    got = await bob("invitation", "list", "--json")
    assert (got.documents[0]["orgName"], got.documents[0]["inviterEmail"]) == ("Search team", "emma@example.org")
    assert (await ann("invitation", "resend", got.documents[0]["invitationId"], "--json")).error[
        "reason"
    ] == "rate_limited"
    assert (await bob("invitation", "accept", got.documents[0]["invitationId"][:-1], "--switch")).status == Exit.OK
    assert (await bob("run", "show", run_id)).status == Exit.OK
    denied = await bob("run", "start", "--json", "--detach", "true")
    assert (denied.status, denied.error["reason"]) == (Exit.REFUSED, "org_scope_denied")

    members = {each["email"]: each["userId"] for each in (await ann("member", "list", "--json")).documents}
    assert set(members) == {"emma@example.org", "frank@example.org"}
    assert (await ann("org", "leave", org_id, "--json")).error["reason"] == "last_owner"
    nobody = await ann("member", "role", "carol@example.org", "member", "--json")
    assert (nobody.error["reason"], nobody.error["field"]) == ("not_found", "person")
    assert (await ann("member", "role", "Frank@example.org", "member")).status == Exit.OK
    assert (await bob("invitation", "accept", "--json")).error["reason"] == "not_found", "it was accepted"
    assert (await bob("run", "start", "--detach", "true")).status == Exit.OK
    assert (await ann("org", "rename", org_id, "Search")).stdout == f"{org_id} is called Search.\n".encode()
    assert (await ann("org", "transfer", org_id, members["frank@example.org"])).status == Exit.OK
    assert (await ann("org", "delete", org_id, "--json")).error["reason"] == "org_scope_denied"
    assert (await bob("member", "remove", members["emma@example.org"])).status == Exit.OK
    refused = await ann("run", "start", "--json", "--detach", "true")
    assert refused.error["reason"] == "org_changed", "what was meant for the team is not done elsewhere"
    assert (await ann("run", "start", "--detach", "true")).status == Exit.OK
    assert len((await ann("org", "list", "--json")).documents) == 1

    assert b"oa org restore" in (await bob("org", "delete", org_id)).stdout
    closed = {each["orgId"]: each for each in (await bob("org", "list", "--json")).documents}
    assert closed[org_id]["deleteTime"]
    assert not closed[org_id]["active"]
    assert (await bob("org", "switch", org_id, "--json")).error["reason"] == "org_deleted"
    assert (await bob("org", "restore", org_id)).status == Exit.OK
    assert (await bob("org", "switch", "latest")).stdout == f"You act in {org_id} now.\n".encode()
    assert (await bob("run", "show", run_id)).status == Exit.OK


async def test_a_person_deletes_the_account_and_an_operator_another_one(stack: StackUnderTest, tmp_path: Path) -> None:
    where = {"OA_HOME": str(stack.home), "OA_CONTROL_GRPC": f"127.0.0.1:{stack.ports.control_grpc}"}
    for home in ("leaver", "operator", "other"):
        (tmp_path / home).mkdir()
    leaver = await signed_in(stack, tmp_path / "leaver", "lea@example.org")
    planned = await leaver("account", "delete", "--dry-run", "--json")
    assert (planned.status, "deleteTime" in planned.documents[0]) == (Exit.OK, False)
    assert (await leaver("account", "delete", "--confirm", "other@example.org")).status == Exit.USAGE
    typed = await leaver("account", "delete", text="LEA@example.org\n")
    assert typed.status == Exit.OK, typed.stderr
    assert "Type lea@example.org to delete the account" in typed.stderr
    assert (await leaver("run", "list", "--json")).error["reason"] == "missing_authorization", "it is forgotten here"

    operator = Program.of_a_person(tmp_path / "operator", stack, where)
    user_id = planned.documents[0]["userId"]
    shown = (await operator("admin", "user", "show", user_id, "--json")).documents[0]
    assert ("deleteTime" in shown, "name" in shown) == (True, False)
    again = await operator("admin", "user", "delete", user_id, "--json")
    assert (again.status, "deleteTime" in again.documents[0]) == (Exit.OK, True)

    other = await signed_in(stack, tmp_path / "other", "lea@example.org")
    ended = await operator("admin", "user", "delete", "lea@example.org", "--confirm", "lea@example.org", "--json")
    assert ended.status == Exit.OK, ended.stderr
    assert ended.documents[0]["userId"] != user_id
    assert (await other("run", "list", "--json")).error["reason"] in ("token_revoked", "reauth_required")
