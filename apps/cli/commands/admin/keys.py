"""`oa admin keys …`: the keys that sign tokens."""

from __future__ import annotations

from collections.abc import Sequence

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, signing_keys_group
from apps.cli.times import time_words
from oa_client.cpython.operators.signing_keys import SigningKey, SigningKeyOperators


@signing_keys_group.command("list", epilog="Example: oa admin keys list")
@command
async def list_keys(cli: Cli) -> Exit:
    """Show the keys, oldest first: which one signs, which ones only verify, and until when."""
    async with operators(SigningKeyOperators, cli.env) as operator:
        _show(cli, await operator.list())
    return Exit.OK


@signing_keys_group.command("rotate", epilog="Example: oa admin keys rotate")
@click.option(
    "--stolen", default="", metavar="KEY", help="A key that was stolen. Another key signs now, and all others end."
)
@command
async def rotate(cli: Cli, stolen: str) -> Exit:
    """Create the next key. No valid token is refused, and nothing has to be restarted.

    Control publishes the key at once, signs with it once every service has it, and accepts tokens of the previous key
    until the last of them has expired. With --stolen, no token that was signed before is accepted any more. People stay
    signed in, because their clients refresh tokens by themselves.
    """
    async with operators(SigningKeyOperators, cli.env) as operator:
        keys = await operator.rotate(stolen)
    _show(cli, keys)
    cli.output.note(f"{words_of_rotation(keys[-1])}. See it: oa admin keys list")
    return Exit.OK


def words_of_rotation(newest: SigningKey) -> str:
    """Return when the new key signs, and what must be true of the services by then; control does not know it."""
    if newest.state == "signing":
        return f"{newest.key_id} signs from now on"
    must = "every service has to fetch it before, so check that OA_JWKS_REFRESH_S of each ends earlier"
    return f"{newest.key_id} signs from {time_words(newest.signs_from)} on; {must}"


def _show(cli: Cli, keys: Sequence[SigningKey]) -> None:
    for each in keys:
        cli.output.document(each.document)
    rows = [
        [
            each.key_id,
            each.state,
            "settings" if each.from_settings else time_words(each.created_at),
            time_words(each.signs_from),
            time_words(each.ends_at),
        ]
        for each in keys
    ]
    cli.output.table(["key", "state", "made", "signs from", "ends"], rows)
