"""A PostgreSQL of our own: its programs, where its data lies, and the server."""
