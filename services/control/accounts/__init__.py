"""Deleting accounts: people delete their own, operators anybody's."""
