"""Accounts that have ended for good: they are remembered, and what they have here ends with them."""
