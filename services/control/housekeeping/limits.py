"""Limits of the sweeping of tables."""

SWEEP_INTERVAL_S = 60.0
"""Time between two sweeps."""
MAX_SWEPT_ROWS = 10_000
"""Maximum number of rows of a table that one sweep removes."""
