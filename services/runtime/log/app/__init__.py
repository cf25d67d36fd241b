"""Writing the log and following it."""
