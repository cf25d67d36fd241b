"""Limits of service accounts."""

MAX_SERVICE_ACCOUNTS = 1000
"""Maximum number of live service accounts of an org; a list of them stays one page."""
MAX_LISTED = 2000
"""Maximum number of accounts that a list shows, revoked ones included."""
