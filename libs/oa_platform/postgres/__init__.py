"""PostgreSQL: which server is spoken to, the pool, notifications and migrations."""
