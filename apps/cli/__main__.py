"""The entry of `oa`: runs a command, and turns whatever goes wrong into words and an exit code. No tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

# gRPC's own log lines are for its developers.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

import apps.cli.commands  # noqa: F401 - registers them all
from apps.cli.exits import Exit, exit_of_refusal
from apps.cli.program import Cli, oa
from apps.cli.sink import keep_standard_descriptors
from oa_base.refusal import Refusal
from oa_client.follow.items import EventsArchived


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    cli = Cli()
    cli.output.as_json = "--json" in arguments[: _end_of_options(arguments)]
    with cli.output.strays():
        return cli.output.finish(_run(cli, arguments))


def _run(cli: Cli, arguments: Sequence[str]) -> int:
    try:
        return int(oa.main(list(arguments), prog_name="oa", obj=cli, standalone_mode=False) or Exit.OK)
    except EventsArchived as archived:
        message = f"{archived.message}; read them with `oa replay show {archived.run_id}`"
        return _refused(cli, Refusal(archived.reason, message))
    except Refusal as refusal:
        return _refused(cli, refusal)
    except click.ClickException as error:
        cli.output.usage(error)
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except UnicodeEncodeError:
        # Arguments and settings are refused by name. What is left: the name of this machine, or of a folder.
        return _refused(
            cli,
            Refusal(
                "invalid_value",
                "a name of this machine is no UTF-8 and can't be sent; rename the machine or the folder",
            ),
        )
    except OSError as error:
        return _refused(cli, _of_this_machine(error)) if error.errno else _unexpected(cli, error)
    except Exception as error:  # noqa: BLE001 - the last resort: words instead of a traceback
        return _unexpected(cli, error)


def _refused(cli: Cli, refusal: Refusal) -> Exit:
    cli.output.refusal(refusal)
    return exit_of_refusal(refusal)


def _of_this_machine(error: OSError) -> Refusal:
    """What the operating system refuses is no defect of ours."""
    if error.filename is not None:
        message = f"{error.filename} can't be used: {error.strerror}; OA_HOME and OA_CLIENT_HOME name the folders"
    elif _directory_is_gone():
        message = "the working directory was removed; go into another one, or give whole paths (OA_HOME, files)"
    else:
        message = f"this machine refused: {error.strerror}; see to that, and try again"
    return Refusal("invalid_setting", message)


def _directory_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def _unexpected(cli: Cli, error: Exception) -> Exit:
    if os.environ.get("OA_DEBUG"):
        cli.output.trace("".join(traceback.format_exception(error)))
    message = f"a defect of ours: {type(error).__name__}: {error}; OA_DEBUG=1 shows where, please report it"
    cli.output.refusal(Refusal("internal", message))
    return Exit.REFUSED


def main() -> None:
    """Entry of the program `oa`."""
    keep_standard_descriptors()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
