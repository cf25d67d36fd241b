"""The use cases of the audit log: sealing and reading it, and dropping old events."""
