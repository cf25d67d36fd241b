"""Secrets in logs: text that has the form of a token, key or password of ours. Every test's logs are searched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from oa_platform.config.production import DEVELOPMENT_MARK

_FORMS = {
    "a token": re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{20,}"),
    "a refresh token": re.compile(r"ort_[0-9A-HJKMNP-TV-Z]{26}\.[0-9]+\.[A-Za-z0-9_-]{43}"),
    "an API key": re.compile(r"oak_[A-Za-z0-9_-]{43}"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
    "a secret of a local stack": re.compile(rf"{re.escape(DEVELOPMENT_MARK)}-[A-Za-z0-9_-]{{32,}}"),
    "a password in a URL": re.compile(r"postgres(?:ql)?://[^\s:/@]+:[^\s@*]+@"),
}
_LOGGED = re.compile(r'\[(?:debug|info|warning|error|critical) +\]|\{.*"event": ')


def leaks_in(lines: Iterable[str]) -> Iterator[str]:
    """Yield which kind of secret is in which line; the secret itself is not shown."""
    for line in lines:
        for what, form in _FORMS.items():
            if form.search(line):
                yield f"{what} in: {form.sub('…', line)[:200]}"


def logged(output: str) -> list[str]:
    """The lines that our logs wrote, without the other output of a test or its program."""
    return [line for line in output.splitlines() if _LOGGED.match(line)]


def check_logs(folder: Path) -> None:
    """Search the logs of processes. Raises AssertionError if one of them holds a secret."""
    found = [f"{path.name}: {leak}" for path in sorted(folder.glob("*.log*")) for leak in _leaks_of(path)]
    assert not found, "secrets were logged:\n" + "\n".join(found)


def _leaks_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        return list(leaks_in(lines))
