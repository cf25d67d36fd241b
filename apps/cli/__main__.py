"""The entry of `oa`: runs a command, and turns whatever goes wrong into words and an exit code. No tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

# gRPC's own log lines are for its developers.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

import apps.cli.commands  # noqa: F401 - registers them all
from apps.cli.exits import Exit, exit_of_refusal
from apps.cli.program import Cli, oa
from oa_errors import Refusal


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    cli = Cli()
    cli.output.as_json = "--json" in arguments[: _end_of_options(arguments)]
    try:
        result = oa.main(list(arguments), prog_name="oa", obj=cli, standalone_mode=False)
        return int(result or 0)
    except Refusal as refusal:
        cli.output.refusal(refusal)
        return exit_of_refusal(refusal)
    except click.ClickException as error:
        if cli.output.as_json:
            cli.output.usage(error.format_message())
        else:
            error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone. Nothing more can be said, also not by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        if error.filename is None:
            return _unexpected(cli, error)
        message = f"{error.filename} can't be used: {error.strerror}. OA_HOME and OA_CLIENT_HOME name the folders."
        cli.output.refusal(Refusal("invalid_setting", message))
        return Exit.REFUSED
    except Exception as error:  # noqa: BLE001 - the last resort: words instead of a traceback
        return _unexpected(cli, error)


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def _unexpected(cli: Cli, error: Exception) -> int:
    if os.environ.get("OA_DEBUG"):
        traceback.print_exc()
    message = f"A defect of ours: {type(error).__name__}: {error}. OA_DEBUG=1 shows where; please report it."
    cli.output.refusal(Refusal("internal", message))
    return Exit.REFUSED


def main() -> None:
    """Entry of the program `oa`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
