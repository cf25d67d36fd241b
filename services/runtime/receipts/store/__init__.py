"""Receipts and their log in Postgres."""
