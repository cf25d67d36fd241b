"""PostgreSQL: the choice of the server, the pool, notifications and migrations."""
