"""`oa admin secrets|database|migrate …`: creates an installation and brings it up to date."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from apps.cli.admin.database import prepare, script
from apps.cli.admin.migrations import bring_up, look, verify
from apps.cli.admin.secrets import DATABASE_MANIFEST, MANIFEST, new_secrets, read_passwords, write_secrets
from apps.cli.exits import Exit
from apps.cli.program import Cli, admin_group, command

_FOLDER = click.Path(file_okay=False, path_type=Path)


@admin_group.group("secrets")
def secrets_group() -> None:
    """Keys, tokens and passwords of an installation."""


@secrets_group.command("new", epilog="Example: oa admin secrets new --database db.example:5432 secrets")
@click.option(
    "--database", required=True, metavar="HOST:PORT", help="Where services find PostgreSQL; several with commas."
)
@click.option("--namespace", default="openagents", show_default=True, help="Namespace of the Kubernetes Secrets.")
@click.argument("folder", type=_FOLDER)
@command
def new(cli: Cli, folder: Path, database: str, namespace: str) -> Exit:
    """Create all secrets of a new installation in FOLDER: a file for each, and manifests for `kubectl apply`."""
    made = new_secrets(database)
    write_secrets(folder, made, namespace)
    cli.output.document({"folder": str(folder), "secrets": {name: sorted(keys) for name, keys in made.items()}})
    cli.output.say(f"{sum(map(len, made.values()))} secrets are in {folder}, for your eyes alone.")
    cli.output.say(f"Roles and schemas: oa admin database prepare {shlex.quote(str(folder))}", "dim")
    cli.output.say(f"Kubernetes: kubectl apply -f {shlex.quote(str(folder / MANIFEST))}", "dim")
    cli.output.say(
        f"With a PostgreSQL in the cluster: kubectl apply -f {shlex.quote(str(folder / DATABASE_MANIFEST))}", "dim"
    )
    return Exit.OK


@admin_group.group("database")
def database_group() -> None:
    """The database of an installation."""


@database_group.command("prepare", epilog="Example: oa admin database prepare secrets")
@click.argument("folder", type=_FOLDER)
@command
async def prepare_database(cli: Cli, folder: Path) -> Exit:
    """Create the roles, the database and the schemas, with the passwords in FOLDER.

    OA_ADMIN_DATABASE_URL, or the file that OA_ADMIN_DATABASE_URL_FILE names, signs in as a superuser. Everything that
    exists already stays; the roles get the passwords in FOLDER.
    """
    await prepare(cli.env, read_passwords(folder))
    cli.output.document({"prepared": True})
    cli.output.say("Roles, database and schemas are there. Next: the migrations.")
    return Exit.OK


@database_group.command("sql", epilog="Example: oa admin database sql > roles.sql")
@command
def database_sql(cli: Cli) -> Exit:
    """Print the SQL of `prepare`, without passwords, to run it by hand in psql."""
    sql = script()
    cli.output.document({"sql": sql})
    cli.output.say(sql.rstrip("\n"), layout="\n\t")
    return Exit.OK


@admin_group.group("migrate")
def migrate_group() -> None:
    """Migrations of all schemas. OA_MIGRATE_DATABASE_URL signs in as the owner of the schemas."""


_contract = click.option(
    "--contract",
    is_flag=True,
    help="Include migrations that remove things. Nothing of the previous release may still run.",
)


@migrate_group.command("status", epilog="Example: oa admin migrate status")
@command
async def migrate_status(cli: Cli) -> Exit:
    """Show how far each schema is, and check that the applied migrations are those of this release."""
    planes = await look(cli.env, contract=True)
    rows = [[one.service, str(len(one.applied)), ", ".join(step.name for step in one.now) or "none"] for one in planes]
    cli.output.document(
        {one.service: {"applied": one.applied, "pending": [step.name for step in one.now]} for one in planes}
    )
    cli.output.table(["schema of", "applied", "pending"], rows)
    return Exit.OK


@migrate_group.command("plan", epilog="Example: oa admin migrate plan --contract")
@_contract
@command
async def migrate_plan(cli: Cli, contract: bool) -> Exit:
    """Show the SQL that `up` would run now."""
    planes = await look(cli.env, contract=contract)
    cli.output.document({one.service: {step.name: step.sql for step in one.now} for one in planes})
    for one in planes:
        for step in one.now:
            cli.output.say(f"-- {one.service}/{step.name}", "bold")
            cli.output.say(step.sql.rstrip("\n"), layout="\n\t")
        if one.later:
            cli.output.say(f"{one.service}: {', '.join(step.name for step in one.later)} wait for --contract", "dim")
    if not any(one.now for one in planes):
        cli.output.say("Nothing is pending.")
    return Exit.OK


@migrate_group.command("verify", epilog="Example: oa admin migrate verify")
@command
async def migrate_verify(cli: Cli) -> Exit:
    """Check that this release's services could start on the schemas as they are."""
    await verify(cli.env)
    cli.output.document({"verified": True})
    cli.output.say("The schemas are what this release needs.")
    return Exit.OK


@migrate_group.command("up", epilog="Example: oa admin migrate up")
@_contract
@command
async def migrate_up(cli: Cli, contract: bool) -> Exit:
    """Apply pending migrations, one file per transaction."""
    done = await bring_up(cli.env, contract=contract)
    cli.output.document(done)
    for service, names in done.items():
        cli.output.say(f"{service}: {', '.join(names) or 'up to date'}")
    return Exit.OK
