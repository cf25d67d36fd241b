"""`oa admin`: the secrets that it makes are good, kept close, and open exactly what they should in a real database."""

from __future__ import annotations

import asyncio
import errno
import json
import stat
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from apps.cli.__main__ import run
from apps.cli.admin import secrets
from apps.cli.admin.secrets import DATABASE_MANIFEST, MANIFEST, new_secrets, role_secret
from apps.cli.commands.admin.keys import words_of_rotation
from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_base.refusal import Refusal
from oa_client.cpython.operators.signing_keys import SigningKey
from oa_localstack.postgres.binaries import find_binaries
from oa_localstack.postgres.server import PostgresServer
from oa_platform.postgres.planes import ROLES
from oa_platform.postgres.preparation import migrate_service

SERVICES = ("control", "khala-gateway", "projector", "runtime")


def test_a_rotation_says_what_every_service_must_have_done_by_when() -> None:
    times = {"created_at": "2026-01-01T00:00:00.5Z", "signs_from": "2026-01-01T00:10:00.5Z", "ends_at": ""}
    waiting = SigningKey(key_id="new", state="published", from_settings=False, document={}, **times)
    assert words_of_rotation(waiting) == (
        "new signs from 2026-01-01T00:10:00Z on; every service has to fetch it before, so check that "
        "OA_JWKS_REFRESH_S of each ends earlier"
    )
    assert words_of_rotation(replace(waiting, state="signing")) == "new signs from now on"


def test_nobody_else_can_read_the_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "secrets"
    assert run(["admin", "secrets", "new", "--database", "db.example:5432", str(folder)]) == Exit.OK
    paths = [folder, *folder.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
    shown = capsys.readouterr().out
    texts = [path.read_text("utf-8") for path in paths if path.is_file() and path.name != "OA_ACCEPTED_SERVICES"]
    assert all(text not in shown for text in texts)


def test_the_manifest_has_what_pods_use_and_no_more(tmp_path: Path) -> None:
    run(["admin", "secrets", "new", "--database", "db.example:5432", "--namespace", "agents", str(tmp_path / "s")])
    items = json.loads((tmp_path / "s" / MANIFEST).read_text("utf-8"))["items"]
    assert {item["metadata"]["namespace"] for item in items} == {"agents"}
    names = {item["metadata"]["name"] for item in items}
    assert names == {
        *(f"openagents-{name}" for name in SERVICES),
        *(f"openagents-callers-of-{name}" for name in SERVICES),
        "openagents-migrate",
    }


def test_a_database_in_the_cluster_finds_its_roles_passwords(tmp_path: Path) -> None:
    run(["admin", "secrets", "new", "--database", "db.example:5432", str(tmp_path / "s")])
    items = json.loads((tmp_path / "s" / DATABASE_MANIFEST).read_text("utf-8"))["items"]
    assert {item["type"] for item in items} == {"kubernetes.io/basic-auth"}
    assert {item["metadata"]["name"] for item in items} == {role_secret(role) for role in ROLES}
    assert {item["stringData"]["username"] for item in items} == set(ROLES)
    for item in items:
        password = (tmp_path / "s" / item["metadata"]["name"] / "password").read_text("utf-8")
        assert item["stringData"]["password"] == password


def test_callers_are_an_env_file_as_well(tmp_path: Path) -> None:
    run(["admin", "secrets", "new", "--database", "postgres:5432", str(tmp_path / "s")])
    files = {path.name for path in (tmp_path / "s").glob("*.env")}
    assert files == {f"openagents-callers-of-{s}.env" for s in SERVICES}
    value = (tmp_path / "s" / "openagents-callers-of-control" / "OA_ACCEPTED_SERVICES").read_text("utf-8")
    text = (tmp_path / "s" / "openagents-callers-of-control.env").read_text("utf-8")
    assert text == f"OA_ACCEPTED_SERVICES={value}\n"


def test_two_installations_share_nothing() -> None:
    one, two = new_secrets("db:5432"), new_secrets("db:5432")
    same = {key for name in one for key, text in one[name].items() if two[name][key] == text}
    assert same == {"username"}


def test_secrets_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["admin", "secrets", "new", "--database", "db.example:5432", str(tmp_path / "s")]
    assert run(arguments) == Exit.OK
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert run(arguments) != Exit.OK
    assert "is not empty" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_secrets_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, exists: bool
) -> None:
    """Wherever the disk is full, or somebody stops it."""
    folder, whole = tmp_path / "s", secrets._write
    if exists:
        folder.mkdir()
    left = 0

    def write(path: Path, text: str) -> None:
        nonlocal left
        assert not (folder.exists() and any(folder.iterdir())), "nothing is there until all is, whoever is killed"
        if left == 0:
            path.touch()
            raise error
        left -= 1
        whole(path, text)

    monkeypatch.setattr(secrets, "_write", write)
    made = new_secrets("db.example:5432")
    files = sum(map(len, made.values()))
    for number in (0, 1, files // 2, files):
        left = number
        with pytest.raises(type(error)):
            secrets.write_secrets(folder, made, "agents")
        assert [path.name for path in tmp_path.iterdir()] == (["s"] if exists else []), "nothing stays"
    left = 2 * files
    secrets.write_secrets(folder, made, "agents")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert len(list(folder.rglob("*/*"))) == files


def test_a_folder_that_others_fill_meanwhile_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = tmp_path / "s", secrets._write

    def write(path: Path, text: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "theirs").touch()
        whole(path, text)

    monkeypatch.setattr(secrets, "_write", write)
    with pytest.raises(Refusal, match="is not empty"):
        secrets.write_secrets(folder, new_secrets("db.example:5432"), "agents")
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "theirs"]


def test_the_folder_in_which_somebody_is_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would have another one in its place, which the person does not see."""
    monkeypatch.chdir(tmp_path)
    assert run(["admin", "secrets", "new", "--database", "db.example:5432", "."]) != Exit.OK
    assert "name a folder in it" in capsys.readouterr().err


@pytest.mark.parametrize("database", ["db example", "db:0", "me:secret@db:5432", "db:5432/other"])
def test_a_place_that_is_none_is_refused(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["admin", "secrets", "new", "--database", database, str(tmp_path / "s")]) != Exit.OK
    assert "--database is no host:port" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


async def test_a_database_is_prepared_for_these_secrets(tmp_path: Path, own_postgres: PostgresServer) -> None:
    program = Program(tmp_path, {"OA_ADMIN_DATABASE_URL": own_postgres.dsn()})
    folder = tmp_path / "secrets"
    database = f"127.0.0.1:{own_postgres.port}"
    assert (await program("admin", "secrets", "new", "--database", database, str(folder))).status == Exit.OK
    for _ in range(2):  # what is there stays
        assert (await program("admin", "database", "prepare", str(folder))).status == Exit.OK
    await migrate_service((folder / "openagents-migrate" / "database-url").read_text("utf-8"), "runtime")
    runtime = (folder / "openagents-runtime" / "database-url").read_text("utf-8")
    assert await _rows(runtime, "SELECT count(*) FROM runtime.events") == 0
    control = (folder / "openagents-control" / "database-url").read_text("utf-8")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _rows(control, "SELECT count(*) FROM runtime.events")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _rows(runtime, "CREATE TABLE runtime.mine (id integer)")


async def test_the_sql_of_a_preparation_can_be_run_by_hand(tmp_path: Path, own_postgres: PostgresServer) -> None:
    folder = tmp_path / "secrets"
    program = Program(tmp_path)
    await program("admin", "secrets", "new", "--database", f"127.0.0.1:{own_postgres.port}", str(folder))
    script = (await program("admin", "database", "sql")).stdout
    passwords = {role: (folder / role_secret(role) / "password").read_text("utf-8") for role in ROLES}
    for _ in range(2):
        await _psql(own_postgres, script)
        for role, password in passwords.items():
            await _psql(own_postgres, f"ALTER ROLE {role} PASSWORD '{password}'".encode())
    await migrate_service((folder / "openagents-migrate" / "database-url").read_text("utf-8"), "runtime")
    runtime = (folder / "openagents-runtime" / "database-url").read_text("utf-8")
    assert await _rows(runtime, "SELECT count(*) FROM events") == 0
    (document,) = (await program("admin", "database", "sql", "--json")).documents
    assert document["sql"].encode() == script


async def _psql(server: PostgresServer, script: bytes) -> None:
    program = find_binaries(server.account) / "psql"
    process = await asyncio.create_subprocess_exec(
        str(program), "--no-psqlrc", "--set=ON_ERROR_STOP=1", server.dsn(), stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate(script)
    assert process.returncode == 0, output.decode()


async def test_migrations_are_seen_planned_and_applied(tmp_path: Path, own_postgres: PostgresServer) -> None:
    folder = tmp_path / "secrets"
    program = Program(
        tmp_path,
        {
            "OA_ADMIN_DATABASE_URL": own_postgres.dsn(),
            "OA_MIGRATE_DATABASE_URL_FILE": str(folder / "openagents-migrate" / "database-url"),
        },
    )
    await program("admin", "secrets", "new", "--database", f"127.0.0.1:{own_postgres.port}", str(folder))
    await program("admin", "database", "prepare", str(folder))
    (before,) = (await program("admin", "migrate", "status", "--json")).documents
    assert before.keys() == {"control", "runtime", "projector"}
    assert all(plane["applied"] == [] and plane["pending"] for plane in before.values())
    (plan,) = (await program("admin", "migrate", "plan", "--json")).documents
    assert {service: list(files) for service, files in plan.items()} == {
        service: plane["pending"] for service, plane in before.items()
    }
    assert (await program("admin", "migrate", "verify", "--json")).error["reason"] == "migration_refused"
    (done,) = (await program("admin", "migrate", "up", "--json")).documents
    assert done == {service: plane["pending"] for service, plane in before.items()}
    (after,) = (await program("admin", "migrate", "status", "--json")).documents
    assert all(plane["pending"] == [] for plane in after.values())
    assert (await program("admin", "migrate", "verify")).status == Exit.OK
    shown = await program("admin", "migrate", "plan")
    assert (shown.status, shown.stdout) == (Exit.OK, b"Nothing is pending.\n")


async def test_a_folder_without_passwords_is_refused(tmp_path: Path) -> None:
    done = await Program(tmp_path)("admin", "database", "prepare", str(tmp_path / "none"), "--json")
    assert done.error["reason"] == "invalid_value"
    assert "oa admin secrets new" in done.error["message"]


async def _rows(dsn: str, statement: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(statement) or 0)
    finally:
        await connection.close()
