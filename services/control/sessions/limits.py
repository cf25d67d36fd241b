"""Limits of sessions."""

MAX_LISTED = 500
"""Maximum number of sessions that a list shows."""
