"""Errors as messages and exit codes. Loaded only after an error, because it needs the whole catalogue."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from platformdirs import user_config_dir

from apps.cli.exits import Exit
from apps.cli.output import Output
from oa_base.catalogue import ClientAction
from oa_base.refusal import Refusal
from oa_client.core.refusals import needs_sign_in
from oa_client.follow.items import EventsArchived
from oa_localstack.settings import nearest_home

_NEXT = {
    ClientAction.FIX_REQUEST: "mend the command and run it again",
    ClientAction.RETRY: "try again in a moment",
    ClientAction.REAUTHENTICATE: "sign in with `oa login`",
    ClientAction.REREAD: "look at the present state, for example with `oa run show`, and decide again",
    ClientAction.RESYNC: "run the command again, which starts from the beginning of the topic",
    ClientAction.RECONNECT: "run the command again, which goes on where it stopped",
    ClientAction.UPGRADE: "install a newer version of oa",
    ClientAction.STOP_WORK: "nothing is left to do here: the run has ended, or another worker has it",
}
_ONLY_HERE = {ClientAction.REAUTHENTICATE, ClientAction.UPGRADE}
"""Only this program knows how to do these, so it says so even if the message says what to do."""
_NOT_PROVED_CODE = "DATA_LOSS"
_OUR_MODULES = ("oa_", "openagents", "apps", "services")
"""How the names of our own modules begin: if one of these is missing, it is a defect."""


def failed(output: Output, error: Exception, stack_missing_at: Callable[[], str] = str) -> Exit:
    """Report the error, and return the exit code. `stack_missing_at`: see `settings`; called if nobody is signed in."""
    refusal = _refusal_of(error)
    if refusal is None:
        return _unexpected(output, error)
    if refusal.reason == "missing_authorization" and (url := stack_missing_at()):
        todo = "start it with `oa up`, then sign in with `oa login`"
        refusal = Refusal(refusal.reason, f"no local stack runs, and nobody is signed in at {url}; {todo}")
    _tell(output, refusal)
    return exit_of_refusal(refusal)


def exit_of_refusal(refusal: Refusal) -> Exit:
    """The exit code for a command that was refused."""
    if refusal.info.grpc_code == _NOT_PROVED_CODE:
        return Exit.NOT_PROVED
    if needs_sign_in(refusal) or refusal.reason == "invalid_api_key":
        return Exit.SIGN_IN
    if refusal.info.action in (ClientAction.RETRY, ClientAction.RECONNECT):
        return Exit.UNREACHABLE
    return Exit.REFUSED


def next_step(refusal: Refusal) -> str:
    """Return what to do next, in the words of this program; empty if the message says it itself or nothing helps."""
    action = refusal.info.action
    if "oa " in refusal.message or refusal.field.startswith("OA_"):
        return ""
    if action is ClientAction.RETRY and refusal.retry_after_ms:
        return "" if "try again" in refusal.message else f"try again in {refusal.retry_hint_s} s"
    return "" if "; " in refusal.message and action not in _ONLY_HERE else _NEXT.get(action, "")


def _refusal_of(error: Exception) -> Refusal | None:
    """The error as a refusal; None for a defect of ours."""
    match error:
        case EventsArchived():
            return Refusal(error.reason, f"{error.message}; read them with `oa replay show {error.run_id}`")
        case Refusal():
            return error
        case UnicodeEncodeError():
            # Arguments and settings are refused by name. Only the name of this machine or of a folder is left.
            message = "a name of this machine is no UTF-8 and can't be sent; rename the machine or the folder"
            return Refusal("invalid_value", message)
        case ModuleNotFoundError() if not (error.name or "").startswith(_OUR_MODULES):
            message = f"the module {error.name} is not installed; run pip install 'openagents-runtime[cli]'"
            return Refusal("invalid_setting", message)
        case OSError() if error.errno:
            return _of_this_machine(error)
        case _:
            return None


def _of_this_machine(error: OSError) -> Refusal:
    """Return the refusal for an error of the operating system, which is no defect of ours."""
    if error.filename is not None:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        what = "OA_HOME and OA_CLIENT_HOME name the folders" if _is_of_oa(path) else "see to that, or give another path"
        message = f"{path} can't be used: {error.strerror}; {what}"
    elif _directory_is_gone():
        message = "the working directory was removed; go into another one, or give whole paths (OA_HOME, files)"
    else:
        message = f"this machine refused: {error.strerror}; see to that, and try again"
    return Refusal("invalid_setting", message)


def _is_of_oa(path: str) -> bool:
    """Whether the path is in a folder of `oa` itself, or one that such a folder is in."""
    home = os.environ.get("OA_HOME") or nearest_home()
    named = (home, os.environ.get("OA_CLIENT_HOME"), user_config_dir("openagents"))
    try:
        place = Path(path).absolute()
        folders = [Path(each).absolute() for each in named if each]
    except FileNotFoundError:  # the working directory was removed
        return False
    return any(place.is_relative_to(folder) or folder.is_relative_to(place) for folder in folders)


def _directory_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _unexpected(output: Output, error: Exception) -> Exit:
    if os.environ.get("OA_DEBUG"):
        output.trace("".join(traceback.format_exception(error)))
    message = f"a defect of ours: {type(error).__name__}: {error}; OA_DEBUG=1 shows where, please report it"
    _tell(output, Refusal("internal", message))
    return Exit.REFUSED


def _tell(output: Output, refusal: Refusal) -> None:
    """Write the reason, what happened and what to do next in one line, then the further lines of the message."""
    where = f" ({refusal.field})" if refusal.field else ""
    said, end, more = refusal.message.partition("\n")
    hint = next_step(refusal)
    line = f"{said.rstrip('.')}; {hint}" if hint else said
    output.error(f"{refusal.reason}{where}", f"{line}{end}{more}", _document(refusal))


def _document(refusal: Refusal) -> dict[str, Any]:
    """Return the refusal as a document for programs."""
    return {
        "reason": refusal.reason,
        "message": refusal.message,
        "field": refusal.field,
        "metadata": refusal.metadata,
        "retryAfterMs": refusal.retry_after_ms,
        "action": refusal.info.action.value,
    }
