"""Receipts: handed out, merged into their log, and proved to be in it."""
