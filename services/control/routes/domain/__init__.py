"""Decisions: which side a person gets, when a canary moves, and whether a bypass is valid."""
