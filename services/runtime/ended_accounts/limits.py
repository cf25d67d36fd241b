"""Limits of ended accounts."""

from __future__ import annotations

RETRY_S = 1.0
"""Pause before an account that could not be ended is tried again."""
