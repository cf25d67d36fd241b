"""What is done with the audit log: it is sealed, read, and dropped when it is old."""
