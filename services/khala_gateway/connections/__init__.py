"""Connections: each has a session, and delivery of the topics that the session subscribes to."""
