"""Decisions about codes and addresses."""
