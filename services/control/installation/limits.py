"""Limits of lists for operators."""

DEFAULT_PAGE = 50
"""Number of orgs on a page, unless another number is asked for."""
