"""Keeps read models up to date with runtime's log: follows it without a hole, and applies each entry once."""
