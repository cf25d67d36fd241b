"""Connections: a session each, and the delivery of what it subscribes to."""
