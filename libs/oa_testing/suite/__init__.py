"""A run of pytest: fixtures, the order of modules, skipped tests, and the report at the end."""
