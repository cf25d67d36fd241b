"""Decisions about workers: which of them are silent, and the notices that they get."""
