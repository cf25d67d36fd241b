"""`oa key …`: API keys of service accounts, and personal access tokens."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import click

from apps.cli.exits import Exit
from apps.cli.program import Cli, command, key_group
from apps.cli.times import DURATION
from oa_client.core.api_keys import ApiKey

_ACCOUNT = click.option("--account", default="", metavar="SERVICE_ACCOUNT_ID", help="Of this service account.")
_PERSONAL = click.option("--personal", is_flag=True, help="Your own: personal access tokens.")


@key_group.command("create", epilog="Example: oa key create ci --scope runs.write --ttl 90d > ci.key")
@click.argument("name")
@_ACCOUNT
@_PERSONAL
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What the key may do, for example runs.write. Repeat it."
)
@click.option("--ttl", type=DURATION, default=None, metavar="90d", help="How long the key lives; without it, for ever.")
@command
async def create(
    cli: Cli, name: str, account: str, personal: bool, scopes: tuple[str, ...], ttl: timedelta | None
) -> Exit:
    """Make a service account called NAME, and print its API key, which is shown this once.

    With --account it is another key of that account. With --personal it is a personal access token: it acts as you,
    within its scopes, and has to have a --ttl. Without --scope a key may do all that such a key can.

    Only the key goes to stdout: export OA_API_KEY="$(oa key create ci)"
    """
    _one_of(account, personal)
    ttl_s = _seconds(ttl)
    async with cli.site.client() as client:
        if account or personal:
            new = await client.commands.keys.create(name, service_account_id=account, scopes=scopes, ttl_s=ttl_s)
            made, text, document = f"{new.key.api_key_id} ({new.key.name})", new.api_key, new.document
        else:
            first = await client.commands.create_service_account(name, scopes=scopes, ttl_s=ttl_s)
            made, text, document = f"{first.service_account_id} ({first.name})", first.api_key, first.document
    cli.output.note(f"Made {made}. The key is shown only now:")
    cli.output.say(text)
    cli.output.document(document)
    return Exit.OK


@key_group.command("list", epilog="Example: oa key list --account sva_01JD8V0000000000000000000A")
@_ACCOUNT
@_PERSONAL
@click.option("--all", "ended", is_flag=True, help="Also those that were revoked.")
@command
async def list_keys(cli: Cli, account: str, personal: bool, ended: bool) -> Exit:
    """List your org's service accounts, the newest first; with --account or --personal, keys.

    Nobody can see a key again, but how each begins: so one that was found somewhere can be recognised.
    """
    _one_of(account, personal)
    async with cli.site.client() as client:
        if account or personal:
            _show(cli, await client.commands.keys.list(account), ended=ended)
            return Exit.OK
        accounts = [each for each in await client.commands.service_accounts() if ended or not each.revoked_at]
    for each in accounts:
        cli.output.document(each.document)
    if accounts:
        rows = [[each.service_account_id, each.created_at[:19], each.revoked_at[:19], each.name] for each in accounts]
        cli.output.table(["service account", "created", "revoked", "name"], rows)
    else:
        cli.output.note("No service account. Make one: oa key create NAME")
    return Exit.OK


@key_group.command("rotate", epilog="Example: oa key rotate apk_01JD8V0000000000000000000A --overlap 1h > ci.key")
@click.argument("api_key_id")
@click.option(
    "--overlap", type=DURATION, default="1d", show_default=True, metavar="1d", help="How long the old key still works."
)
@command
async def rotate(cli: Cli, api_key_id: str, overlap: timedelta) -> Exit:
    """Print a key that takes the place of API_KEY_ID: same owner, name, scopes and lifetime. It is shown this once.

    Give it to whoever uses the old one within --overlap; then the old one ends. `--overlap 0s` ends it at once, with
    the tokens that were made from it.
    """
    async with cli.site.client() as client:
        new = await client.commands.keys.rotate(api_key_id, overlap_s=_seconds(overlap))
    cli.output.note(f"Made {new.key.api_key_id}. The old key ends at {new.old_expires_at[:19]}. The new one:")
    cli.output.say(new.api_key)
    cli.output.document(new.document)
    return Exit.OK


@key_group.command("revoke", epilog="Example: oa key revoke apk_01JD8V0000000000000000000A")
@click.argument("key_or_account")
@command
async def revoke(cli: Cli, key_or_account: str) -> Exit:
    """End a key (apk_…), or a service account (sva_…) with all of its keys; and the tokens that were made from them."""
    async with cli.site.client() as client:
        if key_or_account.startswith("apk_"):
            await client.commands.keys.revoke(key_or_account)
            document = {"api_key_id": key_or_account, "revoked": True}
        else:
            await client.commands.revoke_service_account(key_or_account)
            document = {"service_account_id": key_or_account, "revoked": True}
    cli.output.say(f"Revoked {key_or_account}.")
    cli.output.document(document)
    return Exit.OK


def _show(cli: Cli, keys: Iterable[ApiKey], *, ended: bool) -> None:
    shown = [key for key in keys if ended or not key.revoked_at]
    for key in shown:
        cli.output.document(key.document)
    if not shown:
        cli.output.note("No key.")
        return
    rows = [
        [
            key.api_key_id,
            key.prefix,
            key.created_at[:19],
            key.revoked_at[:19] or key.expires_at[:19],
            key.last_used_at[:19],
            " ".join(key.scopes),
            key.name,
        ]
        for key in shown
    ]
    cli.output.table(["key", "begins", "created", "ends", "last used", "scopes", "name"], rows)


def _one_of(account: str, personal: bool) -> None:
    if account and personal:
        raise click.UsageError("Give --account or --personal, not both.")


def _seconds(duration: timedelta | None) -> int:
    """Whole seconds; a part of one counts as one."""
    seconds = -(-(duration or timedelta()) // timedelta(seconds=1))
    if seconds > _MAX_SECONDS:
        raise click.UsageError("Give a duration of less than 136 years.")
    return seconds


_MAX_SECONDS = 2**32 - 1
