"""Replay artifacts of finished runs, handed out in pieces."""
