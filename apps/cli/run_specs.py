"""What a run executes, as options and arguments say it."""

from __future__ import annotations

from pathlib import Path

import click


def input_of(agent: str, given: str | None, argv: tuple[str, ...]) -> str:
    """The agent's input; empty for a run of a command."""
    if not agent:
        if given is not None:
            raise click.UsageError("--input is for an agent; name it with --adapter.")
        if not argv:
            raise click.UsageError("Give a command after --, or an agent with --adapter and --input.")
        return ""
    if argv:
        raise click.UsageError("An agent takes no command; leave out what follows the options.")
    if given is None:
        raise click.UsageError("Give the agent its input: --input '{…}', or --input @file.")
    return json_of(given)


def json_of(given: str) -> str:
    """A JSON text, or that of the file whose name stands behind an @."""
    return _file_text(given[1:]) if given.startswith("@") else given


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path!r} can't be read ({type(error).__name__}).", param_hint="--input") from None


def variable(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--env")
    return name, value
