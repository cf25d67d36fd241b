"""Exit codes: one table for all commands (docs/cli.md shows it)."""

from __future__ import annotations

from enum import IntEnum

from oa_runlog.events import Outcome, RunFinished


class Exit(IntEnum):
    """The exit codes of `oa` itself, as opposed to those of a run's command.

    After following a run, `oa` exits as the run's command would have exited in a shell. The codes of `oa` itself are
    codes that commands hardly use, with the number of sysexits.h where it has a name for the case.
    """

    OK = 0
    RUN_FAILED = 1
    USAGE = 64
    NOT_PROVED = 65
    UNREACHABLE = 69
    REFUSED = 70
    OUTPUT_LOST = 74
    SIGN_IN = 77
    RUN_CANCELED = 79
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "Success; a run that was followed succeeded. Also used if the reader of a pipe stopped reading.",
    Exit.RUN_FAILED: "The run that was followed failed without an exit code of a command: for example, it did not "
    "start, or was lost with its worker.",
    Exit.USAGE: "Wrong usage: an unknown command or option, or a missing argument.",
    Exit.NOT_PROVED: "A receipt, a log or a count does not prove what it should.",
    Exit.UNREACHABLE: "A service can't be reached or is too busy; the same command may work later.",
    Exit.REFUSED: "Refused for the reason that is printed.",
    Exit.OUTPUT_LOST: "Done, but not shown: standard output is closed, or can't be written (a full disk).",
    Exit.SIGN_IN: "Nobody is signed in, or the session or key is no longer valid.",
    Exit.RUN_CANCELED: "The run that was followed was canceled.",
    Exit.INTERRUPTED: "Interrupted (Ctrl-C), or told a second time to stop. A run that was followed continues.",
}
COMMANDS_OWN = {
    "1 to 255": "The run that was followed failed: its command exited with this code.",
    "129 to 192": "The run that was followed failed: a signal ended its command. The code is 128 plus the number of "
    "the signal: 137 for SIGKILL.",
}
"""Further codes, for runs of commands."""
_SIGNALED = 128
_MAX_CODE = 255


def exit_of_run(finish: RunFinished) -> int:
    """The exit code for a run that was followed to its end."""
    measured = finish.exec
    return exit_of_finish(finish.outcome, measured.exit_code if measured else None, measured.signal if measured else 0)


def exit_of_finish(outcome: str, exit_code: int | None, signal: int) -> int:
    """The exit code for a run with this outcome. `signal`: the one that ended its command, 0 for none."""
    if outcome == Outcome.SUCCEEDED:
        return Exit.OK
    if outcome == Outcome.CANCELED:
        return Exit.RUN_CANCELED
    code = _SIGNALED + signal if signal else exit_code or 0
    return code if 0 < code <= _MAX_CODE else Exit.RUN_FAILED
