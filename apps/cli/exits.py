"""Exit codes: one table for all commands (docs/cli.md shows it)."""

from __future__ import annotations

from enum import IntEnum

from oa_runlog.events import Outcome, RunFinished


class Exit(IntEnum):
    """What a status of `oa` means, when it is not that of a command.

    A run that was followed ends `oa` as its command would have ended the shell's line. What is about `oa` itself has
    codes that commands hardly use; those that sysexits.h has a word for have its number.
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
    Exit.OK: "Done; of a run that was followed: it succeeded. Also when the reader of a pipe had enough.",
    Exit.RUN_FAILED: "The run that was followed failed, and no command has a code for it: it did not start, say, or "
    "was lost with its worker.",
    Exit.USAGE: "Wrong usage: an unknown command or option, or a missing argument.",
    Exit.NOT_PROVED: "A receipt, a log or a count does not prove what it should.",
    Exit.UNREACHABLE: "A service can't be reached or is too busy; the same command may work later.",
    Exit.REFUSED: "Refused, for the reason that is printed.",
    Exit.OUTPUT_LOST: "Done, but not shown: standard output is closed, or can't be written (a full disk).",
    Exit.SIGN_IN: "Nobody is signed in, or the session or key is no longer good.",
    Exit.RUN_CANCELED: "The run that was followed was canceled.",
    Exit.INTERRUPTED: "Interrupted (Ctrl-C), or told a second time to stop; a run that was followed goes on.",
}
COMMANDS_OWN = {
    "1 to 255": "The run that was followed failed: its command exited with this code.",
    "129 to 192": "The run that was followed failed: a signal ended its command. The code is 128 and the number of the "
    "signal: 137 for SIGKILL.",
}
"""What a run of a command adds."""
_SIGNALED = 128
_MAX_CODE = 255


def exit_of_run(finish: RunFinished) -> int:
    """The exit code for a run that was followed to its end."""
    measured = finish.exec
    return exit_of_finish(finish.outcome, measured.exit_code if measured else None, measured.signal if measured else 0)


def exit_of_finish(outcome: str, exit_code: int | None, signal: int) -> int:
    """The exit code for a run that has ended so. `signal`: the one that ended its command, 0 for none."""
    if outcome == Outcome.SUCCEEDED:
        return Exit.OK
    if outcome == Outcome.CANCELED:
        return Exit.RUN_CANCELED
    code = _SIGNALED + signal if signal else exit_code or 0
    return code if 0 < code <= _MAX_CODE else Exit.RUN_FAILED
