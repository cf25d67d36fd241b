"""Which release this is."""

VERSION = "0.1.0"
"""Of the client, and of the whole project."""
