"""Limits of the deletion of accounts."""

MAX_ATTEMPTS = 10
"""Maximum number of attempts to lock the orgs of a person who joins or founds others meanwhile."""
RETRY_AFTER_MS = 1_000
"""When to try again after that."""
