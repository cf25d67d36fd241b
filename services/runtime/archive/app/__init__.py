"""Artifacts: made, archived and read back."""
