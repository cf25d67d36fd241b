"""Exit codes: one table for all commands (docs/cli.md shows it)."""

from __future__ import annotations

from enum import IntEnum

from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.refusals import needs_sign_in


class Exit(IntEnum):
    """What a status of `oa` means."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    RUN_FAILED = 3
    RUN_CANCELED = 4
    SIGN_IN = 5
    UNREACHABLE = 6
    NOT_PROVED = 7
    OUTPUT_LOST = 8
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "Done; of a run that was followed: it succeeded. Also when the reader of a pipe had enough.",
    Exit.REFUSED: "Refused, for the reason that is printed.",
    Exit.USAGE: "Wrong usage: an unknown command or option, or a missing argument.",
    Exit.RUN_FAILED: "The run that was followed failed.",
    Exit.RUN_CANCELED: "The run that was followed was canceled.",
    Exit.SIGN_IN: "Nobody is signed in, or the session or key is no longer good.",
    Exit.UNREACHABLE: "A service can't be reached or is too busy; the same command may work later.",
    Exit.NOT_PROVED: "A receipt, a log or a count does not prove what it should.",
    Exit.OUTPUT_LOST: "Done, but not shown: standard output is closed, or can't be written (a full disk).",
    Exit.INTERRUPTED: "Interrupted (Ctrl-C), or told a second time to stop; a run that was followed goes on.",
}

_NOT_PROVED_CODE = "DATA_LOSS"
_OUTCOMES = {"succeeded": Exit.OK, "failed": Exit.RUN_FAILED, "canceled": Exit.RUN_CANCELED}


def exit_of_refusal(refusal: Refusal) -> Exit:
    """The exit code for a command that was refused."""
    if refusal.info.grpc_code == _NOT_PROVED_CODE:
        return Exit.NOT_PROVED
    if needs_sign_in(refusal) or refusal.reason == "invalid_api_key":
        return Exit.SIGN_IN
    if refusal.info.action in (ClientAction.RETRY, ClientAction.RECONNECT):
        return Exit.UNREACHABLE
    return Exit.REFUSED


def exit_of_outcome(outcome: str) -> Exit:
    """The exit code for a run that was followed to its end."""
    return _OUTCOMES.get(outcome, Exit.RUN_FAILED)
