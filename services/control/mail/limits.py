"""Limits of mail."""

from __future__ import annotations

from datetime import timedelta

MAX_DELIVERIES = 8
"""Maximum number of mails that a replica delivers at a time."""
LOOK_INTERVAL_S = 1.0
"""Time between two looks for mail that another replica queued or that is due for another attempt."""
CLAIM_MARGIN = timedelta(seconds=10)
"""Time beyond the carrier's timeout for which a replica keeps a mail from the others."""
MAX_EXPIRED = 1_000
"""Maximum number of expired mails that one look removes."""
GOODBYE_S = 1.0
"""Maximum time for the end of a session with a relay that has accepted a mail."""
