"""The audit log: a hash chain of each org's events, which can be read and filtered, and is kept as long as set."""
