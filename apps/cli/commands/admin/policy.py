"""`oa admin policy explain`: why somebody may do something, or not."""

from __future__ import annotations

import click

from apps.cli.admin.operator import operators
from apps.cli.exits import Exit
from apps.cli.program import Cli, command, policy_group
from oa_client.cpython.operators.policy import PolicyOperators, Question

_EXAMPLE = "Example: oa admin policy explain usr_01J… --org org_01J… --session ses_01J…"


@policy_group.command("explain", epilog=_EXAMPLE)
@click.argument("subject")
@click.option("--org", "org_id", required=True, metavar="ORG_ID", help="The org that the token is for.")
@click.option(
    "--session", "session_id", required=True, metavar="ID", help="The session (ses_…) or API key (apk_…) of the token."
)
@click.option("--scope", default="", metavar="SCOPE", help="What the action needs, for example runs.write.")
@click.option(
    "--session-only", is_flag=True, help="The action is only for people who have signed in, not for API keys."
)
@click.option("--fresh-sign-in", is_flag=True, help="The action needs a sign-in that is not too old.")
@click.option(
    "--token-scope",
    "token_scopes",
    multiple=True,
    metavar="SCOPE",
    help="Scope of the token, if not that of --scope.",
)
@click.option("--owner", default="", metavar="ID", help="The person (usr_…) or org (org_…) that owns the object.")
@command
async def explain(
    cli: Cli,
    subject: str,
    org_id: str,
    session_id: str,
    scope: str,
    session_only: bool,
    fresh_sign_in: bool,
    token_scopes: tuple[str, ...],
    owner: str,
) -> Exit:
    """Say whether SUBJECT (usr_… or sva_…) may do something now and, if not, which rule denies it.

    The ids are in the audit log: `session.signed_in` has the session, `service_account.key_exchanged` the key. The
    command changes and records nothing. It exits with 0 for yes and 70 for no.
    """
    carried = token_scopes or ((scope,) if scope else ())
    question = Question(subject, org_id, session_id, scope, carried, session_only, fresh_sign_in, owner)
    async with operators(PolicyOperators, cli.env) as operator:
        answer = await operator.explain(question)
    cli.output.document(answer.document)
    if answer.allowed:
        cli.output.say("Allowed.", "green")
    else:
        cli.output.say(f"Denied by the rule {answer.rule}: {answer.reason}: {answer.message}", "yellow")
    cli.output.say(f"May do now: {' '.join(answer.scopes) or 'nothing'}", "dim")
    return Exit.OK if answer.allowed else Exit.REFUSED
