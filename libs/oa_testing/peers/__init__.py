"""Peers of the project, for tests: real servers and programs, and stand-ins that do what a test wants."""
