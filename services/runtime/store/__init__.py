"""The runtime's tables, through asyncpg. The SQL stands in `sql`, by name."""
