"""A PostgreSQL of our own: the programs, the place of its data, the server, and the roles in it."""
