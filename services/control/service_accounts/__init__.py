"""Service accounts: how workers and scripts sign in."""
