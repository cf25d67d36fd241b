"""The part of the worker's environment that a command gets: a short list of names, and the operator's additions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KEPT = (
    *("PATH", "SHELL"),  # where programs are
    *("HOME", "USER", "LOGNAME", "TMPDIR"),  # where its files are, and whose
    *("LANG", "LANGUAGE", "LC_*", "TZ"),  # how it reads and writes text and times
    *("TERM", "COLORTERM", "NO_COLOR"),  # how it shows them
)
"""Variables that every command gets. None of them gives access to anything: a proxy's URL may contain a password, and a
variable that names a socket or a file of credentials (`SSH_AUTH_SOCK`, `KRB5CCNAME`, `AWS_*`) is as good as they are.
"""
PRIVATE_PREFIX = "OA_"
"""The worker's own settings: they hold its secrets, and nothing lets them through."""
OF_A_TERMINAL = {"TERM", "COLUMNS", "LINES", "COLORTERM", "TERMCAP"}
_TERM = "xterm-256color"
"""The type of a command's terminal, if its spec does not set another TERM."""


def command_environment(
    worker: Mapping[str, str], added: Mapping[str, str], *, allowed: Iterable[str] = (), has_terminal: bool = False
) -> dict[str, str]:
    """Return the command's environment: its part of the worker's, and then the spec's own variables.

    `allowed`: variables that the operator lets through in addition to `KEPT`: names, or prefixes followed by `*`.
    The worker's variables about a terminal are not true of the command's own.
    """
    patterns = (*KEPT, *allowed)
    kept = {name: value for name, value in without_settings(worker).items() if _is_one_of(name, patterns)}
    if has_terminal:
        kept = {name: value for name, value in kept.items() if name not in OF_A_TERMINAL} | {"TERM": _TERM}
    return {**kept, **added}


def without_settings(worker: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment without the worker's own settings."""
    return {name: value for name, value in worker.items() if not name.startswith(PRIVATE_PREFIX)}


def _is_one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns)
