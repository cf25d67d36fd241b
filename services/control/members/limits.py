"""Limits of members."""

MAX_MEMBERS = 1000
"""Maximum number of members of an org."""
DEFAULT_PAGE = 50
"""Number of members on a page, unless another number is asked for."""
