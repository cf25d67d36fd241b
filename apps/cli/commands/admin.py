"""`oa admin …`: what an operator of an installation does."""

from __future__ import annotations

from pathlib import Path

import click

from apps.cli.admin.database import prepare
from apps.cli.admin.secrets import MANIFEST, new_secrets, read_passwords, write_secrets
from apps.cli.exits import Exit
from apps.cli.program import Cli, admin_group, command

_FOLDER = click.Path(file_okay=False, path_type=Path)


@admin_group.group("secrets")
def secrets_group() -> None:
    """Keys, tokens and passwords of an installation."""


@secrets_group.command("new")
@click.option(
    "--database", required=True, metavar="HOST:PORT", help="Where services find PostgreSQL; several with commas."
)
@click.option("--namespace", default="openagents", show_default=True, help="Namespace of the Kubernetes Secrets.")
@click.argument("folder", type=_FOLDER)
@command
def new(cli: Cli, folder: Path, database: str, namespace: str) -> Exit:
    """Make all secrets of a new installation in FOLDER: a file each, and a manifest for `kubectl apply`."""
    made = new_secrets(database)
    write_secrets(folder, made, namespace)
    cli.output.document({"folder": str(folder), "secrets": {name: sorted(keys) for name, keys in made.items()}})
    cli.output.say(f"{sum(map(len, made.values()))} secrets are in {folder}, for your eyes alone.")
    cli.output.say(f"Roles and schemas: oa admin database prepare {folder}", "dim")
    cli.output.say(f"Kubernetes: kubectl apply -f {folder / MANIFEST}", "dim")
    return Exit.OK


@admin_group.group("database")
def database_group() -> None:
    """The database of an installation."""


@database_group.command("prepare")
@click.argument("folder", type=_FOLDER)
@command
async def prepare_database(cli: Cli, folder: Path) -> Exit:
    """Make the roles, the database and the schemas, with the passwords in FOLDER.

    OA_ADMIN_DATABASE_URL, or the file that OA_ADMIN_DATABASE_URL_FILE names, signs in as a superuser. Whatever is there
    already stays; the roles get the passwords of FOLDER.
    """
    await prepare(cli.env, read_passwords(folder))
    cli.output.document({"prepared": True})
    cli.output.say("Roles, database and schemas are there. Next: the migrations.")
    return Exit.OK
