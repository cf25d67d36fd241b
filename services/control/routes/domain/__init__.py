"""Decisions: who gets which side, when a canary moves, and what a bypass is worth."""
