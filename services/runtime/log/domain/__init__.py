"""Decisions of the log: a batch of commands, the order of appends, and what is cached."""
