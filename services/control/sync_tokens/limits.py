"""Limits of sync tokens."""

MAX_OWNERSHIP_QUESTIONS = 16
"""Maximum number of questions to runtime at a time on behalf of one mint."""
OWNERSHIP_TIMEOUT_S = 5.0
"""Maximum time for a question to runtime about who owns a run."""
