"""What a run's log says about an exception: its type and text, shortened, without apparent secrets. Pure.

Everyone who may read the run can read this. The traceback, which shows more, is for the worker's own log.
"""

from __future__ import annotations

import re

from oa_base.visible import visible

HIDDEN = "***"
_MAX_SAID_OF_GROUP = 10
"""Maximum number of exceptions of a group that are described."""
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
    """Fails the run with this reason word and this message for people. Neither may contain a secret."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class AgentExit(Exception):
    """Replaces the exception of `sys.exit()`, which would end the worker with all of its runs if it left a task. Also
    replaces KeyboardInterrupt in a step's thread, where it is no Ctrl-C and would do the same."""

    def __init__(self, error: SystemExit | KeyboardInterrupt) -> None:
        raised = "sys.exit" if isinstance(error, SystemExit) else "KeyboardInterrupt"
        said = f"{raised}: {error}".removesuffix(": ")
        super().__init__(f"an agent can't end its worker; return a result, or raise what is wrong ({said})")


def cause_in(error: BaseException) -> BaseException:
    """Unwrap a group of one exception: a task group wraps the one exception that ended it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def words_of(error: BaseException, max_chars: int) -> str:
    """Describe the exception to a reader of the run, in at most `max_chars` characters."""
    return harmless(_said(error, 4 * max_chars), max_chars)


def harmless(text: str, max_chars: int) -> str:
    """Prepare a text from elsewhere for a reader of the run: shortened, visible, without apparent secrets."""
    text = visible(text[: 4 * max_chars])
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _said(error: BaseException, max_chars: int) -> str:
    """The type and text of an exception; for a group, also of the exceptions in it."""
    said = f"{type(error).__name__}: {_text(error)[:max_chars]}".removesuffix(": ")
    if isinstance(error, BaseExceptionGroup) and len(said) < max_chars:
        said += ": " + "; ".join(_said(each, max_chars // 2) for each in error.exceptions[:_MAX_SAID_OF_GROUP])
    return said


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception that can't even be said
        return ""
