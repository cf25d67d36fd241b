"""The audit log: a hash chain of each org's events, read, filtered, and kept as long as the installation says."""
