"""The audit trail: who did what, and how it ended."""
