"""Limits of the adapter `codex`, with their defaults. Units are at the end of the names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodexLimits:
    """How long an app-server may take, and how much of its messages a run's log gets."""

    answer_timeout_ms: int = 60_000
    """Maximum wait for the answer to a request. A turn itself is not such a wait."""
    interrupt_grace_ms: int = 5_000
    """A turn that is interrupted has this long to end by itself; then its processes are ended."""
    overload_attempts: int = 6
    """How often a request is sent to an app-server that says it is overloaded."""
    overload_first_ms: int = 250
    """Wait before the second attempt; doubles."""
    overload_max_ms: int = 8_000
    """Maximum wait between two attempts."""
    max_line_bytes: int = 16 * 1024 * 1024
    """Maximum length of a message of the app-server; a longer one fails the turn."""
    max_item_bytes: int = 64 * 1024
    """Maximum size of an item's content in the log; the long texts of a larger one are cut, and it says so."""
    max_nesting: int = 24
    """Maximum levels of an item's content in the log; deeper levels are left out, and it says so."""
    max_output_bytes: int = 1024 * 1024
    """Maximum output of one command in the log; the rest is left out, and it says so."""
    max_message_bytes: int = 128 * 1024
    """Maximum size of a message of the assistant; a longer one becomes several."""
    max_result_bytes: int = 64 * 1024
    """Maximum length of the last message in the run's result."""
    max_message_chars: int = 1_000
    """Maximum number of characters of what the app-server says about a failure."""
    max_open_requests: int = 32
    """Maximum number of the turn's requests that wait for people at a time; anything beyond that is declined."""
    max_answers: int = 3
    """How often people are asked for a field of a form until an answer fits; after that the form is given up."""
    max_url_chars: int = 2_000
    """Maximum length of the address of a page that people are asked to open; they are shown the whole of it."""
    stderr_bytes: int = 4 * 1024
    """How much of the end of the app-server's stderr is kept, for the worker's own log."""


DEFAULT_CODEX_LIMITS = CodexLimits()
