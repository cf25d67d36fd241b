"""Limits of what operators see."""

DEFAULT_PAGE = 50
"""Number of orgs on a page, unless another one is asked for."""
