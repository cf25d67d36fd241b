"""`oa completion`: lets a shell complete commands and options of `oa`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from apps.cli.exits import Exit
from apps.cli.program import Cli, command, oa

SHELLS = ("bash", "zsh", "fish")
COMPLETE_VARIABLE = "_OA_COMPLETE"
"""Click's own name of the variable that the script sets when it asks `oa` for completions."""


@oa.command("completion", epilog="Example: oa completion bash > ~/.local/share/bash-completion/completions/oa")
@click.argument("shell", type=click.Choice(SHELLS))
@command
def completion(cli: Cli, shell: str) -> Exit:
    """Print the script that lets a shell complete commands and options of `oa`.

    To enable it in the current shell only: source <(oa completion bash), or oa completion fish | source.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None, "all of SHELLS are click's"
    script = completion_class(oa, {}, "oa", COMPLETE_VARIABLE).source()
    cli.output.document({"shell": shell, "script": script})
    cli.output.say(script.rstrip("\n"), layout="\n\t")
    return Exit.OK
