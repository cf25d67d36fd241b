"""The database transaction that all features share."""
