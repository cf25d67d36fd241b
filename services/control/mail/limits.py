"""Limits of mail."""

from __future__ import annotations

from datetime import timedelta

MAX_DELIVERIES = 8
"""Maximum number of mails that a replica has on their way to the relay at a time."""
LOOK_INTERVAL_S = 1.0
"""Time between two looks for mail that another replica queued, or that is to be tried again."""
CLAIM_MARGIN = timedelta(seconds=10)
"""How much longer a replica keeps a mail from the others than a delivery may take."""
MAX_EXPIRED = 1_000
"""Maximum number of expired mails that one look removes."""
