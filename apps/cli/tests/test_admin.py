"""`oa admin`: the secrets that it makes are good, kept close, and open exactly what they should in a real database."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import asyncpg
import pytest

from apps.cli.__main__ import run
from apps.cli.admin.secrets import MANIFEST, POSTGRES_SECRET, ROLES_SECRET, new_secrets
from apps.cli.exits import Exit
from apps.cli.tests.program import Program
from oa_localstack.postgres.roles import migrate_service
from oa_localstack.postgres.server import PostgresServer

SERVICES = ("control", "khala-gateway", "projector", "runtime")


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
    assert not names & {ROLES_SECRET, POSTGRES_SECRET}


def test_callers_are_an_env_file_as_well(tmp_path: Path) -> None:
    run(["admin", "secrets", "new", "--database", "postgres:5432", str(tmp_path / "s")])
    files = {path.name for path in (tmp_path / "s").glob("*.env")}
    assert files == {f"openagents-callers-of-{s}.env" for s in SERVICES}
    value = (tmp_path / "s" / "openagents-callers-of-control" / "OA_ACCEPTED_SERVICES").read_text("utf-8")
    text = (tmp_path / "s" / "openagents-callers-of-control.env").read_text("utf-8")
    assert text == f"OA_ACCEPTED_SERVICES={value}\n"


def test_two_installations_share_nothing() -> None:
    one, two = new_secrets("db:5432"), new_secrets("db:5432")
    assert not {key: text for name in one for key, text in one[name].items() if two[name][key] == text}


def test_secrets_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["admin", "secrets", "new", "--database", "db.example:5432", str(tmp_path / "s")]
    assert run(arguments) == Exit.OK
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert run(arguments) != Exit.OK
    assert "is not empty" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}


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
