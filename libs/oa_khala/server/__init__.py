"""The server's half: one connection, what its token grants, and what the session asks of its driver."""
