"""A PostgreSQL of our own: the programs, the place of its data, and the server."""
