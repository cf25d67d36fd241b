"""Blocking people and service accounts, which operators do."""
