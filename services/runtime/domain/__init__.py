"""Decisions of the runtime beyond a single run: a batch of commands on one partition."""
