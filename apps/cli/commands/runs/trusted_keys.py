"""The keys that a command trusts: those that it is given, or those that are pinned."""

from __future__ import annotations

import click

from apps.cli.program import Cli
from oa_base.refusal import Refusal
from oa_client.proofs.pins import keys_of

key_option = click.option(
    "--key", "keys", multiple=True, metavar="BASE64", help="A public key to trust, instead of those pinned."
)


def trusted_keys(cli: Cli, given: tuple[str, ...]) -> dict[str, bytes]:
    """Return the public keys given in base64, or those pinned for the site. Calls no service.

    Raises Refusal `unknown_key` if there is none, `invalid_value` for a value that is no key.
    """
    if given:
        try:
            return keys_of(given)
        except Refusal as refusal:
            raise refusal.under("--key") from None
    pinned = cli.site.pins.load()
    if not pinned:
        raise Refusal("unknown_key", "no key is pinned for this site yet; run `oa receipt keys`, or give --key")
    return pinned
