"""Thin shells over the client core."""
