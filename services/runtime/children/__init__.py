"""Runs that are started by runs: their limits, the messages to their parents, and their end with their parents."""
