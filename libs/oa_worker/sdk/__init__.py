"""What every worker does, whatever it executes: the connection, the runs on it, and their appends."""
