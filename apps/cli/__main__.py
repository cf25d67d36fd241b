"""The entry point of `oa`: runs a command, and turns every error into a message and an exit code, without a traceback.

Every command, even `oa --version`, pays for the imports of this module: see `program`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oa_platform.process import interrupts
from oa_platform.process.first import leave_out, silence_grpc

if TYPE_CHECKING:
    from apps.cli.program import Cli

interrupts.ends_at_once()
silence_grpc()
# httpx has a command line of its own, which loads rich and pygments with every command here. Nobody calls it.
leave_out("httpx._main")


def run(arguments: Sequence[str]) -> int:
    """Run one command, and return the exit code."""
    from apps.cli.program import Cli

    cli = Cli()
    cli.output.as_json = "--json" in arguments[: _end_of_options(arguments)]
    with cli.output.strays():
        return cli.output.finish(_run(cli, arguments))


def _run(cli: Cli, arguments: Sequence[str]) -> int:
    import click

    from apps.cli.exits import Exit
    from apps.cli.program import oa

    try:
        return int(oa.main(list(arguments), prog_name="oa", obj=cli, standalone_mode=False) or Exit.OK)
    except click.ClickException as error:
        cli.output.usage(error)
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        _tell_interrupted(cli)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - words instead of a traceback
        from apps.cli.failures import failed

        return failed(cli.output, error, cli.stack_missing_at)


def _tell_interrupted(cli: Cli) -> None:
    from apps.cli.output import error_document

    if cli.output.note_width is not None:
        cli.output.note("")  # ends the line in which a terminal shows ^C
    document = error_document("interrupted", cli.goes_on or "interrupted")
    cli.output.error("interrupted", cli.goes_on, document)


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def main() -> None:
    """Entry point of the program `oa`."""
    try:
        from apps.cli.sink import keep_standard_descriptors

        keep_standard_descriptors()
        status = run(sys.argv[1:])
        interrupts.ends_at_once()
    except KeyboardInterrupt:  # while the end is written
        interrupts.end()
    sys.exit(status)


if __name__ == "__main__":
    main()
