"""Schedules: runs that start by the clock, once for each time."""
