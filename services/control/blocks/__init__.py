"""Blocking people and service accounts: what an operator does."""
