"""Receipts of finished runs, the keys they are signed with, and the log of all receipts."""
