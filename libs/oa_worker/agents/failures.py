"""What a run's log says of an exception: its type and its text, shortened, without what looks like a secret. Pure.

Whoever may read the run reads this. The traceback, which shows more, is for the worker's own log.
"""

from __future__ import annotations

import re

from oa_base.visible import visible

HIDDEN = "***"
_MAX_SAID_OF_GROUP = 10
"""Exceptions of a group that are told of."""
_SECRETS = (
    re.compile(r"(?<=://)[^/\s@]*@"),  # user and password of a URL
    re.compile(r"(?i)(?<=\bbearer )\S+"),
    re.compile(r"(?i)(?<=\bbasic )[a-z0-9+/=]{8,}"),
    re.compile(r"\b(?:oak|sk|pk|ghp|gho|xox[abp]|AKIA)[-_A-Z0-9][-\w]{8,}"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),  # a JSON Web Token
    re.compile(
        r"""(?ix)(?:(?<=password)|(?<=passwd)|(?<=secret)|(?<=token)|(?<=api_key)|(?<=apikey)|(?<=api-key))
        ['"]?\s*[=:]\s*['"]?[^\s'"&,;]+"""
    ),
)


class AgentFailure(Exception):
    """The run fails with this reason word, and this message for people. Neither may hold a secret."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class AgentExit(Exception):
    """What `sys.exit()` becomes: raised out of a task it would end the worker, with all of its runs."""

    def __init__(self, error: SystemExit) -> None:
        super().__init__(f"an agent can't end its worker; return a result, or raise what is wrong (sys.exit: {error})")


def cause_in(error: BaseException) -> BaseException:
    """What an exception stands for: a task group wraps the one exception that ended it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def words_of(error: BaseException, max_chars: int) -> str:
    """The exception for a reader of the run, in at most so many characters."""
    return harmless(_said(error, 4 * max_chars), max_chars)


def harmless(text: str, max_chars: int) -> str:
    """A text from elsewhere for a reader of the run: shortened, visible, without what looks like a secret."""
    text = visible(text[: 4 * max_chars])
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _said(error: BaseException, max_chars: int) -> str:
    """Of a group also what is in it."""
    said = f"{type(error).__name__}: {_text(error)[:max_chars]}".removesuffix(": ")
    if isinstance(error, BaseExceptionGroup) and len(said) < max_chars:
        said += ": " + "; ".join(_said(each, max_chars // 2) for each in error.exceptions[:_MAX_SAID_OF_GROUP])
    return said


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception that can't even be said
        return ""
