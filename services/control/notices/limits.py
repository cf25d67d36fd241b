"""Limits of notices."""

from datetime import timedelta

NOTICE_TTL = timedelta(days=1)
"""How long a notice is tried to be delivered."""
