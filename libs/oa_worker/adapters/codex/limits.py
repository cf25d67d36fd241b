"""Limits of the adapter `codex`, with their defaults. Units are at the end of the names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodexLimits:
    """How long an app-server may take, and how much of what it says a run's log gets."""

    answer_timeout_ms: int = 60_000
    """Maximum wait for the answer to a request. A turn itself is no such wait."""
    interrupt_grace_ms: int = 5_000
    """A turn that is interrupted has this long to end by itself; then its processes are ended."""
    overload_attempts: int = 6
    """So often is a request sent to an app-server that says it is overloaded."""
    overload_first_ms: int = 250
    """Wait before the second attempt; doubles."""
    overload_max_ms: int = 8_000
    """Maximum wait between two of them."""
    max_line_bytes: int = 16 * 1024 * 1024
    """Maximum length of a message of the app-server; a longer one fails the turn."""
    max_item_bytes: int = 64 * 1024
    """Largest content of an item in the log; of a larger one, long texts are cut, and it says so."""
    max_nesting: int = 24
    """Levels of an item's content in the log; what lies deeper is left out, and it says so."""
    max_output_bytes: int = 1024 * 1024
    """Maximum output of one command in the log; what comes after is left out, and it says so."""
    max_message_bytes: int = 128 * 1024
    """Largest message of the assistant; a longer one becomes several."""
    max_result_bytes: int = 64 * 1024
    """Maximum length of the last message in the run's result."""
    max_message_chars: int = 1_000
    """Characters of what the app-server says of a failure."""
    max_open_requests: int = 32
    """Requests of the turn that may wait for people at a time; what would open more is declined."""
    max_answers: int = 3
    """So often are people asked for a field of a form, until an answer fits; then the form is given up."""
    max_url_chars: int = 2_000
    """Maximum length of the address of a page that people are asked to open; they are shown the whole of it."""
    stderr_bytes: int = 4 * 1024
    """How much of the end of the app-server's stderr is kept, for the worker's own log."""


DEFAULT_CODEX_LIMITS = CodexLimits()
