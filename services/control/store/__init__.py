"""The control schema: SQL and nothing else. Only this room imports asyncpg."""
