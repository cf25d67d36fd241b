"""Accounts that have ended for good: that is remembered, and what they have here ends with them."""
