"""Who may start runs in which org."""

from __future__ import annotations

Place = tuple[str, str]
"""Somebody in an org: their ids."""
