"""Decisions on workers: who has gone silent; and what is said to them."""
