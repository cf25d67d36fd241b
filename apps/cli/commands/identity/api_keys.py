"""`oa key …`: API keys of service accounts, and personal access tokens."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import timedelta

import click

from apps.cli.exits import Exit
from apps.cli.following.ids import LATEST, Kind, Listed, meant
from apps.cli.program import Cli, command, key_group
from apps.cli.times import DURATION, DURATION_OR_ZERO, time_words
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.client import Client
from oa_client.core.api_keys import ApiKey
from oa_client.edge.new_ids import new_idempotency_key

_SERVICE_ACCOUNT = Kind("service account", "account", "oa key list", ("sva_",), named=True)
_KEY_OR_ACCOUNT = Kind(
    "key or service account", "key", "oa key list [--account ACCOUNT | --personal]", ("apk_", "sva_"), named=True
)
_ACCOUNT = click.option("--account", default="", metavar="ACCOUNT", help="Service account: its id (sva_…) or its name.")
_PERSONAL = click.option("--personal", is_flag=True, help="Your own keys: personal access tokens.")


@key_group.command("create", epilog="Example: oa key create ci --scope runs.write --ttl 90d > ci.key")
@click.argument("name")
@_ACCOUNT
@_PERSONAL
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What the key may do, for example runs.write.")
@click.option("--ttl", type=DURATION, default=None, metavar="90d", help="Lifetime of the key; unlimited if not given.")
@command
async def create(
    cli: Cli, name: str, account: str, personal: bool, scopes: tuple[str, ...], ttl: timedelta | None
) -> Exit:
    """Create a service account called NAME and print its API key. The key is shown only once.

    With --account, create another key of that account. With --personal, create a personal access token: it acts as
    you, within its scopes, and needs a --ttl. Without --scope, a key may do everything that such a key can.

    Only the key goes to stdout: export OA_API_KEY="$(oa key create ci)"
    """
    _one_of(account, personal)
    ttl_s = _seconds(ttl)
    async with cli.site.client() as client:
        if account or personal:
            owner = await _account_of(client, account)
            new = await client.commands.keys.create(name, service_account_id=owner, scopes=scopes, ttl_s=ttl_s)
            made, text, document = f"{new.key.api_key_id} ({new.key.name})", new.api_key, new.document
        else:
            first = await client.commands.create_service_account(name, scopes=scopes, ttl_s=ttl_s)
            made = f"{first.service_account_id} ({first.name}) with the key {first.api_key_id}"
            text, document = first.api_key, first.document
    cli.output.note(f"Made {made}. The key is shown only now:")
    cli.output.say(text, whole=True)
    cli.output.document(document)
    return Exit.OK


@key_group.command("list", epilog="Example: oa key list --account sva_01JD8V0000000000000000000A")
@_ACCOUNT
@_PERSONAL
@click.option("--all", "ended", is_flag=True, help="Include those that were revoked.")
@command
async def list_keys(cli: Cli, account: str, personal: bool, ended: bool) -> Exit:
    """List your org's service accounts, newest first. With --account or --personal, list keys.

    A key is never shown again, only its beginning, so that a key that was found somewhere can be recognized.
    """
    _one_of(account, personal)
    async with cli.site.client() as client:
        if account or personal:
            _show(cli, await client.commands.keys.list(await _account_of(client, account)), ended=ended)
            return Exit.OK
        accounts = [each for each in await client.commands.service_accounts() if ended or not each.revoked_at]
    for each in accounts:
        cli.output.document(each.document)
    if accounts:
        rows = [
            [each.service_account_id, time_words(each.created_at), time_words(each.revoked_at), each.name]
            for each in accounts
        ]
        cli.output.table(["service account", "created", "revoked", "name"], rows)
    else:
        cli.output.note("No service account. Make one: oa key create NAME")
    return Exit.OK


@key_group.command("rotate", epilog="Example: oa key rotate ci --overlap 1h > ci.key")
@click.argument("key")
@click.option(
    "--overlap",
    type=DURATION_OR_ZERO,
    default="1d",
    show_default=True,
    metavar="1d",
    help="How long the old key still works.",
)
@click.option(
    "--idempotency-key", default="", metavar="KEY", help="Repeat the one of an earlier call to get its lost answer."
)
@command
async def rotate(cli: Cli, key: str, overlap: timedelta, idempotency_key: str) -> Exit:
    """Replace KEY and print the new key, which has the same owner, name, scopes and lifetime. It is shown only once.

    KEY is the id of a key (apk_…), or a service account that has one key: its id (sva_…) or its name. `latest` is the
    newest of your own keys and those of the org's service accounts. Give the new key to the users of the old one
    within --overlap; then the old key ends. `--overlap 0s` ends it at once, with the tokens that were made from it.

    If no answer comes, run the command again with the --idempotency-key that it then names. This makes no second key,
    and prints the new one as long as it has not been used.
    """
    request = idempotency_key or new_idempotency_key()
    async with cli.site.client() as client:
        old = await _key_of(client, key)
        try:
            new = await client.commands.keys.rotate(old, overlap_s=_seconds(overlap), idempotency_key=request)
        except Refusal as refusal:
            if refusal.info.action is not ClientAction.RETRY:
                raise
            again = f"oa key rotate {old} --overlap {_seconds(overlap)}s --idempotency-key {shlex.quote(request)}"
            message = f"{refusal.message}; the key may have been rotated, ask again with: {again}"
            raise Refusal(
                refusal.reason, message, metadata=refusal.metadata, retry_after_ms=refusal.retry_after_ms
            ) from None
    cli.output.note(f"Made {new.key.api_key_id}. The old key ends at {time_words(new.old_expires_at)}. The new one:")
    cli.output.say(new.api_key, whole=True)
    cli.output.document(new.document)
    return Exit.OK


@key_group.command("revoke", epilog="Example: oa key revoke apk_01JD8V0000000000000000000A")
@click.argument("key_or_account")
@command
async def revoke(cli: Cli, key_or_account: str) -> Exit:
    """Revoke a key (apk_…), or a service account (sva_… or its name) with all of its keys, and the tokens that were
    made from them. `latest` is the newest key, never an account.
    """
    async with cli.site.client() as client:
        one = await _key_or_account(client, key_or_account)
        if one.startswith("apk_"):
            await client.commands.keys.revoke(one)
            document = {"apiKeyId": one, "revoked": True}
        else:
            await client.commands.revoke_service_account(one)
            document = {"serviceAccountId": one, "revoked": True}
    cli.output.say(f"Revoked {one}.")
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
            time_words(key.created_at),
            time_words(key.revoked_at) or time_words(key.expires_at),
            time_words(key.last_used_at),
            " ".join(key.scopes),
            key.name,
        ]
        for key in shown
    ]
    cli.output.table(["key", "begins", "created", "ends", "last used", "scopes", "name"], rows)


async def _account_of(client: Client, named: str) -> str:
    """Return the id of a service account given by id or name; empty for no account. Raises Refusal."""
    return await meant(_SERVICE_ACCOUNT, named, lambda: _accounts(client)) if named else ""


async def _key_or_account(client: Client, named: str) -> str:
    """Return the id of a key given by id, or of a service account given by id or name. Raises Refusal."""
    return await meant(_KEY_OR_ACCOUNT, named, lambda: _keys_and_accounts(client, named))


async def _key_of(client: Client, named: str) -> str:
    """Return the id of a key given by id, or as the only key in use of a service account. Raises Refusal."""
    one = await _key_or_account(client, named)
    if not one.startswith("sva_"):
        return one
    used = [each.api_key_id for each in await _living(client, one) if not each.replaced_by]
    if len(used) != 1:
        message = "the account has no key in use, or several; give an id, as `oa key list --account` shows"
        raise Refusal("invalid_value", message, field="key")
    return used[0]


async def _accounts(client: Client) -> list[Listed]:
    living = [each for each in await client.commands.service_accounts() if not each.revoked_at]
    return [Listed(each.service_account_id, each.name) for each in living]


async def _keys_and_accounts(client: Client, named: str) -> list[Listed]:
    """Return the live service accounts and, if `named` may stand for a key, all live keys that the caller may see."""
    accounts = await _accounts(client)
    may_be_key = named == LATEST or any(each.startswith("apk_") for each in _KEY_OR_ACCOUNT.beginnings(named))
    if not may_be_key or named in {each.name for each in accounts}:
        return accounts
    keys = [await _living(client, owner) for owner in ("", *(each.id for each in accounts))]
    return [*accounts, *(Listed(each.api_key_id) for some in keys for each in some)]


async def _living(client: Client, account: str) -> list[ApiKey]:
    return [each for each in await client.commands.keys.list(account) if not each.revoked_at]


def _one_of(account: str, personal: bool) -> None:
    if account and personal:
        raise click.UsageError("Give --account or --personal, not both.")


def _seconds(duration: timedelta | None) -> int:
    """Return whole seconds, rounded up."""
    seconds = -(-(duration or timedelta()) // timedelta(seconds=1))
    if seconds > _MAX_SECONDS:
        raise click.UsageError("Give a duration of less than 136 years.")
    return seconds


_MAX_SECONDS = 2**32 - 1
