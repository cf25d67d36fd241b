"""Runs that are started by runs: their limits, what their parents are told, and their end with their parents."""
