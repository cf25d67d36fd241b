"""`oa login`, `oa logout`."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import click

from apps.cli.commands.identity.provider_login import with_provider
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, oa
from oa_base.refusal import Refusal
from oa_client.edge.auth import Challenge, Credentials

DEV_EMAIL = "demo@openagents.example"
"""The person who signs in on a development stack if nobody else is named."""
DEV_MAIL_TIMEOUT_S = 10.0
"""How long `--dev` waits for the code in the development mailbox."""
_POLL_S = 0.05


@oa.command("login", epilog="Example: oa login --email you@example.org")
@click.option("--email", default=None, help="Address that the code is sent to. Asked for if not given.")
@click.option("--dev", is_flag=True, help="Read the code from the local stack's development mailbox.")
@click.option("--provider", default=None, help="Identity provider to sign in with instead: oidc or workos.")
@click.option("--paste", is_flag=True, help="Ask for the provider's answer, if the browser is on another machine.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port that receives the answer. 0: any free port."
)
@command
def login(cli: Cli, email: str | None, dev: bool, provider: str | None, paste: bool, port: int) -> Exit:
    """Sign in with a code sent by e-mail, or with an identity provider. With --dev and no --email, sign in as the
    person that `oa demo` signs in.

    With --provider, a page opens in a browser, and its address is shown. The answer comes back to this machine, to
    http://127.0.0.1:PORT/callback. If the browser is on another machine, --paste asks for the address at which it
    ended. If codes are turned off and there is only one provider, it is used without --provider, too.

    If you are signed in here and sign in again, you keep the session: everything that runs with it goes on.
    """
    if provider is not None:
        if email is not None or dev:
            raise click.UsageError("--provider goes without --email and --dev")
        return _signed_in(cli, with_provider(cli, provider, paste=paste, port=port))
    if dev and (paste or port):
        raise click.UsageError("--dev goes without --paste and --port: no browser takes part.")
    if email is None:
        email = DEV_EMAIL if dev else cli.output.ask("E-mail")
    if dev:
        credentials = asyncio.run(_login_dev(cli, email))
    else:
        # Prompts run outside of the event loop, so that Ctrl-C ends them.
        try:
            challenge = asyncio.run(_start(cli, email))
        except Refusal as refusal:
            instead = refusal.metadata.get("providers", "")
            if not instead or "," in instead or cli.output.as_json:
                raise
            cli.output.note(refusal.message)
            return _signed_in(cli, with_provider(cli, instead, paste=paste, port=port))
        cli.output.note(f"A code is on its way to {challenge.email}.")
        credentials = _login_asking(cli, challenge)
    return _signed_in(cli, credentials)


def _signed_in(cli: Cli, credentials: Credentials) -> Exit:
    cli.output.say(f"Signed in at {cli.site_of_person.control_url} as {credentials.email} ({credentials.user_id}).")
    cli.output.document(
        {
            "email": credentials.email,
            "userId": credentials.user_id,
            "orgId": credentials.org_id,
            "sessionId": credentials.session_id,
            "deviceId": cli.site_of_person.device_id,
            "controlUrl": cli.site_of_person.control_url,
        }
    )
    return Exit.OK


async def _login_dev(cli: Cli, email: str) -> Credentials:
    mailbox = cli.settings.home.absolute() / "dev-mail.jsonl"
    skip = len(mails(mailbox))
    async with cli.site_of_person.client() as client:
        challenge = await client.auth.start(email)
        return await client.auth.verify(challenge, await dev_code(mailbox, challenge.email, skip))


def _login_asking(cli: Cli, challenge: Challenge) -> Credentials:
    """Ask for the code until it is right, or the server refuses further attempts."""
    while True:
        code = cli.output.ask("Code")
        try:
            return asyncio.run(_verify(cli, challenge, code))
        except Refusal as refusal:
            if refusal.reason != "code_incorrect" or cli.output.as_json:
                raise
            cli.output.note(refusal.message, "yellow")


async def _start(cli: Cli, email: str) -> Challenge:
    async with cli.site_of_person.client() as client:
        return await client.auth.start(email)


async def _verify(cli: Cli, challenge: Challenge, code: str) -> Credentials:
    async with cli.site_of_person.client() as client:
        return await client.auth.verify(challenge, code)


@oa.command("logout", epilog="Example: oa logout")
@command
async def logout(cli: Cli) -> Exit:
    """End the session, here and on the server."""
    async with cli.site_of_person.client() as client:
        credentials = client.auth.credentials()
        try:
            await client.commands.revoke_session()
        except Refusal as refusal:
            cli.output.note(f"The server could not be told ({refusal.reason}); the session ends here only.", "yellow")
        client.auth.forget()
    cli.output.say(f"Signed out {credentials.email or credentials.user_id}.")
    cli.output.document({"userId": credentials.user_id, "sessionId": credentials.session_id})
    return Exit.OK


async def dev_code(mailbox: Path, email: str, skip: int = 0) -> str:
    """Return the newest code for `email` (in its canonical form) after the first `skip` mails.

    Raises Refusal `not_found` if none comes.
    """
    deadline = asyncio.get_running_loop().time() + DEV_MAIL_TIMEOUT_S
    while True:
        codes = [mail["code"] for mail in mails(mailbox)[skip:] if mail.get("email") == email and "code" in mail]
        if codes:
            return str(codes[-1])
        if asyncio.get_running_loop().time() > deadline:
            message = f"no code for {email} came into {mailbox}; start a local stack there with `oa up`"
            raise Refusal("not_found", message)
        await asyncio.sleep(_POLL_S)


def mails(mailbox: Path) -> list[dict[str, str]]:
    """All mails of a development mailbox. Lines that a full disk cut off are none."""
    found: list[dict[str, str]] = []
    with suppress(OSError):
        for line in mailbox.read_bytes().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found
