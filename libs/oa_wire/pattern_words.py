"""The patterns of the contracts in words: a person who reads a refusal need not read regular expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ID = re.compile(r"([a-z]{3})_\[0-9A-HJKMNP-TV-Z\]\{26\}")
_EXAMPLE_ULID = "01JD8V0000000000000000000A"

WORDS: Mapping[str, str] = {
    r"[A-Za-z0-9._:-]+": "it may have letters, digits, and . _ : - only; write one like deploy-2026.1",
    r"[A-Za-z0-9][A-Za-z0-9._-]*": "it may have letters, digits, and . _ - only, and begins with a letter or digit; "
    "write one like nightly-build",
    r"[a-z0-9][a-z0-9._-]*": "it may have lower-case letters, digits, and . _ - only, and begins with a letter or "
    "digit; write one like nightly-build",
    r"[a-z][a-z0-9_.-]*": "it may have lower-case letters, digits, and _ . - only, and begins with a letter; "
    "write one like exec",
    r"[a-z][a-z0-9-]*": "it may have lower-case letters, digits, and - only, and begins with a letter; "
    "write one like new-pages",
    r"[a-z][a-z0-9_-]*": "it may have lower-case letters, digits, and _ - only, and begins with a letter; "
    "write one like desktop",
    r"[a-z][a-z0-9_]*": "it may have lower-case letters, digits, and _ only, and begins with a letter; "
    "write one like rate_limited",
    r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+": "it has to be lower-case words with dots between them; write one like acme.note",
    r"[a-z]+([._][a-z]+)*": "it has to be lower-case words with . or _ between them; write one like run_finished",
    r"[A-Za-z0-9_+/-]+": "it is not the name of a time zone; write one like Europe/Zurich",
    r"/[A-Za-z0-9._~/-]*": "it has to be a plain path; write one like /app",
    r"[!-~]{1,4096}": "it has to be 1 to 4096 visible ASCII characters; send it as it came",
    r"run_[0-9A-HJKMNP-TV-Z]{0,26}": "it is not the beginning of a run's id; write one like run_01JD8V",
    r"ort_[0-7][0-9A-HJKMNP-TV-Z]{25}\.[0-9]{1,18}\.[A-Za-z0-9_-]{43}": "it is not a refresh token; send the one of "
    "the latest answer",
}
"""Pattern -> what a text that does not match it is told: what is wrong, and what to do."""


def said_of(pattern: str) -> str:
    """What is said to whoever sent a text that does not match `pattern`."""
    if found := _ID.fullmatch(pattern):
        return f"this is no such id; write one like {found[1]}_{_EXAMPLE_ULID}"
    return WORDS.get(pattern) or f"it must match {pattern}"
