"""Schedules: runs that start by the clock, each time once."""
