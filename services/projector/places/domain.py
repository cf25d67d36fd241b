"""Places: permissions to start runs in an org."""

from __future__ import annotations

Place = tuple[str, str]
"""The ids of a person or account and of an org."""
